"""Loss-guided diffusion with Monte Carlo samples (Song et al. 2023)."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from diffusion_priors.diffusion.denoiser import Denoised
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.operators.requirements import DENSITY
from diffusion_priors.solvers.base import Guided, Problem
from diffusion_priors.solvers.gaussian_product import conditional_variance


class LGDMC(Guided):
    """s̃ = s + ∇_{x_t} log (1/n) Σᵢ p(y | x̂0 + r zᵢ), r² = v u²/(v + u²), u = σ_t/α_t (LGD-MC, Song et al. 2023).

    It estimates the score of y given x_t for x0 given x_t ~ N(x̂0, r² I) with n = `samples` draws, for any operator. The gradients
    at the draws xᵢ are averaged with the weights p(y | xᵢ)/Σ p(y | xⱼ) and pulled back through one network call. It needs few measured
    numbers or a large σ_y: otherwise one weight is near 1, the noise of that draw over σ_y² outweighs the data, and images diverge,
    as in super-resolution with σ_y = 0.05. The paper has v = 1; `prior_variance` is v in units of [-1, 1] images, about 0.25 for
    faces. The authors published no code. InverseBench's averages with equal weights and divides by the root of the mean loss; this
    is the paper's average.

    One network call and one vector-Jacobian product a step. Raises ValueError where n is below 1 or v is not positive.
    """

    requires = (DENSITY,)
    needs_signal = True

    def __init__(self, samples: int = 10, prior_variance: float = 0.25) -> None:
        if samples < 1:
            raise ValueError(f"the average needs at least one sample, got samples={samples}; set solver.samples")
        if not 0.0 < prior_variance < inf:
            raise ValueError(f"the variance of the prior must be positive, got {prior_variance}; set solver.prior_variance")
        self.samples, self.prior_variance = samples, prior_variance

    def estimate(self, x: Tensor, level: NoiseLevel, problem: Problem) -> Denoised:
        measurement, r = problem.measurement.repeat(self.samples), conditional_variance(level, self.prior_variance) ** 0.5
        denoised, pull_back = problem.denoiser.linearise(x, level)
        around = denoised.x0[:, None].expand(-1, self.samples, *x.shape[1:])
        drawn = (around + r * problem.rng.normal(around)).flatten(0, 1)
        least = torch.finfo(x.dtype).min  # of a likelihood of 0: where all are, the weights are equal
        weights = (-measurement.nll(drawn)).clamp_min(least).view(-1, self.samples).softmax(1)
        gradients = measurement.nll_gradient(drawn).view(around.shape)
        mean = torch.einsum("bn,bnchw->bchw", weights, gradients)
        return denoised.with_score_change(level, pull_back(-mean))
