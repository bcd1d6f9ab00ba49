"""Tweedie moment projected diffusions (Boys et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_priors.diffusion.denoiser import Denoised
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.operators.requirements import LINEAR
from diffusion_priors.solvers.base import Guided, Problem


class TMPD(Guided):
    """s̃ = s + Jᵀ Aᴴ D⁻¹ (y − A x̂0), D = diag(A V Aᴴ 1) + σ_y², V = (σ_t²/α_t) Jᵀ (Boys et al. 2023).

    The row sums of A V Aᴴ stand for its diagonal, which would need a vector-Jacobian product per entry of y. They are that
    diagonal where the measured pixels are independent given x_t. A network can give negative sums, which count as 0.
    One network call and two vector-Jacobian products a step.
    """

    requires = (LINEAR,)
    needs_signal = True

    def estimate(self, x: Tensor, level: NoiseLevel, problem: Problem) -> Denoised:
        measurement, operator = problem.measurement, problem.measurement.linear_operator
        denoised, pull_back = problem.denoiser.linearise(x, level)
        residual = measurement.residual(denoised.x0)
        sums = operator(level.sigma**2 / level.alpha * pull_back(operator.adjoint(torch.ones_like(residual)), again=True))
        variance = sums.real.clamp_min(0.0) + measurement.sigma_y**2
        weighted = torch.where(variance > 0.0, residual / variance, 0.0)
        return denoised.with_score_change(level, pull_back(operator.adjoint(weighted)))
