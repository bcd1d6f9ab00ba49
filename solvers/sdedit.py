"""SDEdit (Meng et al. 2022)."""

from __future__ import annotations

from torch import Tensor

from diffusion_priors.diffusion.grids import Grid
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.schedules import Schedule
from diffusion_priors.operators.requirements import INITIAL_IMAGE
from diffusion_priors.solvers.base import Problem, Step, noised_measurement, steps_of
from diffusion_priors.solvers.unconditional import Unconditional


class SDEdit(Unconditional):
    """x_{t*} = √ᾱ_{t*} y + √(1 − ᾱ_{t*}) z, then the reverse process from t* to 0 (the paper's Eq. 4; SDEdit, Alg. 1).

    `t_star` counts noising steps, 1 … T; the grid's levels with less noise are walked. Where y is smaller than x0,
    A⁺y is noised. The official code also repeats the whole three times and puts known pixels back
    after each step; the paper's Sec. 3.5 does neither, and neither do we.
    """

    requires = (INITIAL_IMAGE,)
    uses_measurement = True
    starts_from_image = True

    def __init__(self, t_star: float = 500) -> None:
        self.t_star = t_star

    def plan(self, grid: Grid, schedule: Schedule) -> list[Step]:
        start = schedule.after(self.t_star, "solver.t_star")
        return steps_of([start] + [level for level in grid(schedule) if level.noise_to_signal < start.noise_to_signal])

    def begin(self, problem: Problem, start: NoiseLevel) -> Tensor:
        return noised_measurement(problem, start)
