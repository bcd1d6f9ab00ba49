"""Moment matching posterior sampling (Rozet et al. 2024)."""

from __future__ import annotations

from torch import Tensor

from diffusion_priors.diffusion.denoiser import Denoised
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.operators.krylov import cg
from diffusion_priors.operators.requirements import LINEAR
from diffusion_priors.solvers.base import Guided, Problem


class MMPS(Guided):
    """s̃ = s + Jᵀ Aᴴ (A V Aᴴ + σ_y² I)⁻¹ (y − A x̂0), V = Cov[x0 | x_t] = (σ_t²/α_t) Jᵀ (Rozet et al. 2024).

    V is Tweedie's covariance: the exact one of a denoiser that is E[x0 | x_t]. The system is solved by `iterations` of
    conjugate gradients in the space of y, each a vector-Jacobian product through the same network call; a step costs one call
    and `iterations` + 1 of them. The authors' code takes one iteration of GMRES, because the Jacobian of a network is only
    nearly symmetric. Here an image stops where a direction has no positive curvature, which a few iterations seldom meet.
    x̂0 is clamped where prior.clip is set; a saturated pixel then has no variance.

    Raises ValueError where `iterations` is below 1.
    """

    requires = (LINEAR,)
    needs_signal = True
    tolerance = 1e-6

    def __init__(self, iterations: int = 1) -> None:
        if iterations < 1:
            raise ValueError(f"the system needs at least one iteration, got iterations={iterations}; set solver.iterations")
        self.iterations = iterations

    def estimate(self, x: Tensor, level: NoiseLevel, problem: Problem) -> Denoised:
        measurement, operator = problem.measurement, problem.measurement.linear_operator
        denoised, pull_back = problem.denoiser.linearise(x, level)
        tweedie = level.sigma**2 / level.alpha

        def covariance(v: Tensor) -> Tensor:
            return measurement.sigma_y**2 * v + measurement.support * operator(tweedie * pull_back(operator.adjoint(v), again=True))

        weighted = cg(covariance, measurement.residual(denoised.x0), self.tolerance, self.iterations)
        return denoised.with_score_change(level, pull_back(operator.adjoint(weighted)))
