"""What a Gaussian guess of x0 gives: its variance given x_t, and exact samples of it times a Gaussian likelihood."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_priors.diffusion.image_random import ImageRandom
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.operators.measurement import Measurement


def sample_product(mean: Tensor, variance: float, measurement: Measurement, rng: ImageRandom) -> Tensor:
    """x ~ N(x; m, r² I) N(y; A x, σ_y² I), exactly (Papandreou & Yuille 2010): perturb m and y, then solve for the mean.

    x = z + Aᴴ(AAᴴ + w I)⁻¹ (y + σ_y ξ − A z), z = m + r ζ, w = σ_y²/r², ξ and ζ standard normal. Linear A only; in closed
    form for operators with a spectrum, by conjugate gradients otherwise. Without noise it is N(m, r² I) given A x = y.
    """
    z = mean + variance**0.5 * rng.normal(mean)
    y = measurement.y
    xi = torch.view_as_complex(rng.normal(torch.view_as_real(y))) if y.is_complex() else rng.normal(y)
    residual = measurement.residual(z) + measurement.support * measurement.sigma_y * xi
    return z + measurement.linear_operator.tikhonov(residual, measurement.sigma_y**2 / variance)


def conditional_variance(level: NoiseLevel, prior_variance: float) -> float:
    """Var[x0 | x_t] = v u²/(v + u²), u = σ/α, for x0 ~ N(m, v)."""
    u2 = level.noise_to_signal**2
    return prior_variance * u2 / (prior_variance + u2)
