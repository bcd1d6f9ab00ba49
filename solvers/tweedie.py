"""Single-step denoising."""

from __future__ import annotations

from torch import Tensor

from diffusion_priors.diffusion.grids import Grid
from diffusion_priors.diffusion.levels import CLEAN, NoiseLevel
from diffusion_priors.diffusion.schedules import Schedule
from diffusion_priors.operators.requirements import INITIAL_IMAGE
from diffusion_priors.solvers.base import Info, Problem, Solver, Step, noised_measurement


class Tweedie(Solver):
    """x̂0 = (x_t + (1 − ᾱ_t) s_θ(x_t, t))/√ᾱ_t, x_t = √ᾱ_t y + √(1 − ᾱ_t) z (the paper's Eq. 3, Sec. 3.3).

    `t` counts noising steps, 1 … T. With operator=identity and noise_model=none, y is the clean image and this is
    the paper's denoising experiment.
    """

    requires = (INITIAL_IMAGE,)
    starts_from_image = True

    def __init__(self, t: float = 500) -> None:
        self.t = t

    def plan(self, grid: Grid, schedule: Schedule) -> list[Step]:
        return [Step(schedule.after(self.t, "solver.t"), CLEAN)]

    def init(self, problem: Problem, start: NoiseLevel) -> Tensor:
        return noised_measurement(problem, start)

    def step(self, state: Tensor, step: Step, problem: Problem) -> tuple[Tensor, Tensor, Info]:
        x0 = problem.denoiser(state, step.now).x0
        return x0, x0, {}
