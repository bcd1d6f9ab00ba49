"""DPS with Adam's step sizes (Belardi et al. 2026)."""

from __future__ import annotations

from math import inf
from typing import Any, NamedTuple

from torch import Tensor

from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.reference_levels import state_scale
from diffusion_priors.solvers.adam import Moments
from diffusion_priors.solvers.base import Guided, Info, Problem, Step, Walk


class Memory(NamedTuple):
    """What the sampler keeps of earlier levels, and Adam's moments of the guidance."""

    sampler: Any
    moments: Moments


class AdamDPS(Guided):
    """x_s = x'_s − ζ m̂/(√v̂ + 10⁻⁸), m and v Adam's moments of g = ∇_{x_t} ‖y − A x̂0(x_t)‖₂ along the walk (Belardi et al. 2026).

    x'_s is the sampler's step. Each pixel thereby moves by about ζ, whatever the norm of its gradient. Where α² + σ² ≠ 1, as for
    VE, step and gradient are those of x_t/√(α² + σ²). The moments are an image's own and start at 0 for each. The authors' README
    takes ζ = 0.034, β₁ = 0 and β₂ = 0.817.

    Raises ValueError for a negative ζ and where a β lies outside [0, 1).
    """

    def __init__(self, zeta: float = 0.034, beta1: float = 0.0, beta2: float = 0.817) -> None:
        if not 0.0 <= zeta < inf:
            raise ValueError(f"the step size must be finite and not negative, got zeta={zeta}; set solver.zeta")
        for name, value in (("beta1", beta1), ("beta2", beta2)):
            if not 0.0 <= value < 1.0:
                raise ValueError(f"the decay of a moment must lie in [0, 1), got {name}={value}; set solver.{name}")
        self.zeta, self.beta1, self.beta2 = zeta, beta1, beta2

    def init(self, problem: Problem, start: NoiseLevel) -> Walk:
        x, sampler = super().init(problem, start)
        return Walk(x, Memory(sampler, Moments.zero(x)))

    def step(self, state: Walk, step: Step, problem: Problem) -> tuple[Walk, Tensor, Info]:
        x, (sampler, moments) = state
        denoised, pull_back = problem.denoiser.linearise(x, step.now)
        gradient = state_scale(step.now) * pull_back(problem.measurement.norm_gradient(denoised.x0))
        moments, direction = moments.after(gradient, self.beta1, self.beta2)
        moved = self.move(Walk(x, sampler), step, denoised, problem)
        return Walk(moved.x - self.zeta * state_scale(step.then) * direction, Memory(moved.memory, moments)), denoised.x0, {}
