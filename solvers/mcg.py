"""Manifold constrained gradients (Chung et al. 2022)."""

from __future__ import annotations

from math import inf

from torch import Tensor

from diffusion_priors.diffusion.reference_levels import state_scale
from diffusion_priors.operators.requirements import LINEAR
from diffusion_priors.solvers.base import Guided, Info, Problem, Step, Walk
from diffusion_priors.solvers.projection import project


class MCG(Guided):
    """x_s = P(x'_s − ζ ∇_{x_t} ‖y − A x̂0(x_t)‖₂), P x = x + A⁺(α_s y + σ_s A z − A x) (Chung et al. 2022, Alg. 1).

    x'_s is the sampler's step, P puts the noised measurement in its place, with the noise that belongs to level s. The code of DPS
    has an MCG whose P leaves out that noise. The norm is not squared and per image, as in the official code, where ζ = 1. Where
    α² + σ² ≠ 1, as for VE, the step is one of x_t/√(α² + σ²). The last step ends with A x0 = y, noise included: a method for
    clean y, kept as a baseline.

    Raises ValueError for a negative ζ.
    """

    requires = (LINEAR,)

    def __init__(self, zeta: float = 1.0) -> None:
        if not 0.0 <= zeta < inf:
            raise ValueError(f"the step size must be finite and not negative, got zeta={zeta}; set solver.zeta")
        self.zeta = zeta

    def step(self, state: Walk, step: Step, problem: Problem) -> tuple[Walk, Tensor, Info]:
        denoised, pull_back = problem.denoiser.linearise(state.x, step.now)
        gradient = pull_back(problem.measurement.norm_gradient(denoised.x0))
        moved = self.move(state, step, denoised, problem)
        zeta = self.zeta * state_scale(step.now) * state_scale(step.then)
        return moved._replace(x=project(moved.x - zeta * gradient, step.then, problem)), denoised.x0, {}
