"""Pseudoinverse-guided diffusion (Song et al. 2023)."""

from __future__ import annotations

from math import inf

from torch import Tensor

from diffusion_priors.diffusion.denoiser import Denoised
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.operators.requirements import LINEAR
from diffusion_priors.solvers.base import Guided, Problem
from diffusion_priors.solvers.gaussian_product import conditional_variance


class PiGDM(Guided):
    """s̃ = s + Jᵀ Aᴴ (r² AAᴴ + σ_y² I)⁻¹ (y − A x̂0), r² = v u²/(v + u²), u = σ_t/α_t (ΠGDM, Song et al. 2023).

    It is the score of y given x_t if x0 given x_t is N(x̂0, r² I), which is right for a prior with variance v and
    independent pixels. `prior_variance` is v in units of [-1, 1] images; the paper has 1. A pixel of a face has about 0.25, but
    neighbours vary together: along smooth directions the variance is far larger, and there guidance with a small v goes too
    far, the more so the fewer the steps. With v = 1 and 100 steps a box in a face is filled with black. The paper's Alg. 1
    weighs the guidance by √α_t where x_t moves by DDIM; here the score is changed, so that every sampler moves on the
    posterior's score. The solve is in closed form for operators with a spectrum, by conjugate gradients otherwise.

    One network call and one vector-Jacobian product a step. Raises ValueError where v is not positive.
    """

    requires = (LINEAR,)
    needs_signal = True

    def __init__(self, prior_variance: float = 4.0) -> None:
        if not 0.0 < prior_variance < inf:
            raise ValueError(f"the variance of the prior must be positive, got {prior_variance}; set solver.prior_variance")
        self.prior_variance = prior_variance

    def estimate(self, x: Tensor, level: NoiseLevel, problem: Problem) -> Denoised:
        measurement, variance = problem.measurement, conditional_variance(level, self.prior_variance)
        denoised, pull_back = problem.denoiser.linearise(x, level)
        towards = measurement.linear_operator.tikhonov(measurement.residual(denoised.x0), measurement.sigma_y**2 / variance)
        return denoised.with_score_change(level, pull_back(towards) / variance)
