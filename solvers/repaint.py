"""RePaint (Lugmayr et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_priors.diffusion.grids import Grid
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.schedules import Schedule
from diffusion_priors.diffusion.transitions import Transition
from diffusion_priors.operators.requirements import LINEAR
from diffusion_priors.solvers.base import Info, Problem, Solver, Step
from diffusion_priors.solvers.projection import project
from diffusion_priors.solvers.travel import Travelled, goes_back, with_travels


class RePaint(Solver):
    """x_s = P(x'_s), P x = x + A⁺(α_s y + σ_s A z − A x), with steps back in between (Lugmayr et al. 2022, Alg. 1).

    x'_s is the step of a DDPM or DDIM. For a mask, P takes the known pixels from the noised y. After every `jump_length` steps the walk
    goes back over them by the forward process, x_t ~ N((α_t/α_s) x_s, σ_t² − (α_t σ_s/α_s)²), and takes them again, `repeats` times in
    all: that brings the unknown part into harmony with the known one. The paper takes 250 levels, jump_length 10 and repeats
    10, about 4600 calls. The last step ends with A x0 = y, noise included: a method for clean y.

    Raises ValueError where a count is below 1.
    """

    requires = (LINEAR,)
    sampler_type = Transition

    def __init__(self, jump_length: int = 10, repeats: int = 3) -> None:
        for name, value in (("jump_length", jump_length), ("repeats", repeats)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}; set solver.{name}")
        self.jump_length, self.repeats = jump_length, repeats

    def plan(self, grid: Grid, schedule: Schedule) -> list[Step]:
        return with_travels(super().plan(grid, schedule), self.jump_length, self.repeats)

    def init(self, problem: Problem, start: NoiseLevel) -> Travelled:
        return Travelled(super().init(problem, start), torch.zeros_like(problem.like))

    def step(self, state: Travelled, step: Step, problem: Problem) -> tuple[Travelled, Tensor, Info]:
        now, then, _ = step
        if goes_back(step):
            keep = then.alpha / now.alpha
            fresh = (then.sigma**2 - (keep * now.sigma) ** 2) ** 0.5
            return state._replace(x=keep * state.x + fresh * problem.rng.normal(state.x)), state.x0, {}
        denoised = problem.denoiser(state.x, now)
        x, _ = problem.sampler.step(denoised, problem.denoiser, state.x, now, then, problem.rng, None)
        return Travelled(project(x, then, problem), denoised.x0), denoised.x0, {}

    def image(self, state: Travelled) -> Tensor:
        return state.x
