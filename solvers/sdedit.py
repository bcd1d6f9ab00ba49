"""SDEdit (Meng et al. 2022)."""

from __future__ import annotations

from diffusion_priors.solvers.base import level_at
from diffusion_priors.solvers.unconditional import Unconditional


class SDEdit(Unconditional):
    """x_{t*} = √ᾱ_{t*} y + √(1 − ᾱ_{t*}) z, then the reverse process from t* to 0 (the paper's Eq. 4; SDEdit, Alg. 1).

    `t_star` counts noising steps, 1 … T; the grid's levels below it are walked. Where y is smaller than x0 it
    is A⁺y that is noised. The official code also repeats the whole three times and puts known pixels back
    after each step; the paper's Sec. 3.5 does neither, and neither do we.
    """

    uses_measurement = True
    starts_from_image = True

    def __init__(self, t_star: int = 500) -> None:
        self.t_star = t_star

    def levels(self, grid, table):
        start = level_at(table, self.t_star, "solver.t_star")
        return [start] + [level for level in grid(table) if level.t < start.t]

    def init(self, problem, start):
        return start.diffuse(problem.operator.initial_image(problem.y), problem.rng.normal(problem.blank))
