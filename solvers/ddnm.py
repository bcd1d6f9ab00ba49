"""Denoising diffusion null-space models (Wang et al. 2023)."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from diffusion_priors.diffusion.denoiser import Denoised
from diffusion_priors.diffusion.grids import Grid
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.schedules import Schedule
from diffusion_priors.operators.requirements import LINEAR
from diffusion_priors.solvers.base import Guided, Info, Problem, Step, Walk
from diffusion_priors.solvers.travel import check_travels, goes_back, with_travels


class Memory(NamedTuple):
    """What the sampler keeps of earlier levels, and the x̃0 seen last, (B, C, H, W)."""

    sampler: Any
    x0: Tensor


class DDNM(Guided):
    """x̃0 = x̂0 + A⁺(y − A x̂0), ε̂ the network's (Wang et al. 2023, Eq. 13).

    The range of Aᴴ is taken from y, its null space from the network; the noise of y goes into the image with it. For
    noisy y use DDNMPlus. A⁺ is in closed form where the operator has one, by conjugate gradients otherwise. The paper takes
    100 steps of DDIM with η = 0.85, which solver=ddnm selects; every other sampler works too.

    Time travel takes every `travel_length` steps `travel_repeats` times, 1 and 3 for inpainting in the paper. On the way back
    x_t = α_t x̃0 + σ_t z. The official code takes the x̂0 before its correction there, which leaves y out of that step; the paper
    adds noise to x_s. Raises ValueError where a count is below 1.
    """

    requires = (LINEAR,)

    def __init__(self, travel_length: int = 1, travel_repeats: int = 1) -> None:
        check_travels(travel_length, travel_repeats)
        self.travel_length, self.travel_repeats = travel_length, travel_repeats

    def plan(self, grid: Grid, schedule: Schedule) -> list[Step]:
        return with_travels(super().plan(grid, schedule), self.travel_length, self.travel_repeats)

    def init(self, problem: Problem, start: NoiseLevel) -> Walk:
        x, sampler = super().init(problem, start)
        return Walk(x, Memory(sampler, 0.0 * x))

    def step(self, state: Walk, step: Step, problem: Problem) -> tuple[Walk, Tensor, Info]:
        x, (sampler, corrected) = state
        if goes_back(step):
            there = step.then.diffuse(corrected, problem.rng.normal(x))
            return Walk(there, Memory(problem.sampler.start(), corrected)), corrected, {}
        denoised = self.estimate(x, step.now, problem)
        moved = self.move(Walk(x, sampler), step, denoised, problem)
        return Walk(moved.x, Memory(moved.memory, denoised.x0)), denoised.image, {}

    def estimate(self, x: Tensor, level: NoiseLevel, problem: Problem) -> Denoised:
        denoised = problem.denoiser(x, level)
        corrected = problem.measurement.prox(denoised.x0, 0.0)
        return denoised._replace(x0=corrected, eps=level.eps(x, denoised.x0))
