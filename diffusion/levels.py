"""The value that travels through a sampler: one noise level."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class NoiseLevel:
    """x_t = α · x0 + σ · ε, ε ~ N(0, I).

    `t` is what the network is told (for a DDPM the 0-based index into its betas); `alpha` and
    `sigma` are plain floats, so a step's coefficients never touch the device. Images are
    (B, C, H, W) in [-1, 1] and sigma is in the same units.
    """

    t: int | float
    alpha: float
    sigma: float

    def diffuse(self, x0: Tensor, z: Tensor) -> Tensor:
        """x_t = α x0 + σ z (Ho et al. 2020, Eq. 4; the paper's Eq. 1)."""
        return self.alpha * x0 + self.sigma * z

    def eps(self, x: Tensor, x0: Tensor) -> Tensor:
        """ε = (x_t − α x0) / σ."""
        return (x - self.alpha * x0) / self.sigma

    def score(self, x: Tensor, x0: Tensor) -> Tensor:
        """∇ log p_t(x_t) = (α x̂0 − x_t) / σ² (Tweedie; the paper's Eq. 3 solved for s)."""
        return (self.alpha * x0 - x) / self.sigma**2

    def guided(self, x0: Tensor, score_change: Tensor) -> Tensor:
        """x̃0 = x̂0 + (σ²/α) δ: the x̂0 that belongs to the augmented score s̃ = s + δ.

        Any transition that moves on x̃0 thereby uses s̃ in place of s in its update.
        """
        return x0 + (self.sigma**2 / self.alpha) * score_change


CLEAN = NoiseLevel(t=-1, alpha=1.0, sigma=0.0)
"""The noise-free end of every grid."""
