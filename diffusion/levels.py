"""The value that travels through a sampler: one noise level."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from torch import Tensor


@dataclass(frozen=True, slots=True)
class NoiseLevel:
    """x_t = α · x0 + σ · ε, ε ~ N(0, I).

    `t` is the schedule's own time: the 0-based index into a DDPM's betas, σ for EDM and VE, a time in [0, 1] for flow.
    `alpha` and `sigma` are plain floats, so that the coefficients of a step never touch the device. Images are
    (B, C, H, W) in [-1, 1] and sigma is in the same units.
    """

    t: int | float
    alpha: float
    sigma: float

    @property
    def noise_to_signal(self) -> float:
        """σ/α, infinite where no signal is left. It orders the levels of every schedule, unlike t."""
        return self.sigma / self.alpha if self.alpha > 0.0 else inf

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

        A sampler that moves on x̃0 thereby uses s̃ in place of s. Raises ValueError where α = 0: a state without
        signal has no such x̂0.
        """
        if self.alpha == 0.0:
            raise ValueError(
                f"guidance of the score needs a level with some signal, and alpha is 0 at t={self.t}; "
                "let the grid start later, as with grid=log_snr grid.largest=1000"
            )
        return x0 + (self.sigma**2 / self.alpha) * score_change


CLEAN = NoiseLevel(t=-1, alpha=1.0, sigma=0.0)
"""The noise-free end of every grid."""
