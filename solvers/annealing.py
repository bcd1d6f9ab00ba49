"""The annealing factor λ_t of the ScoreALD methods: how much the measurement weighs at each level."""

from __future__ import annotations

from math import inf

from torch import Tensor

from diffusion_priors.diffusion.levels import NoiseLevel


class Annealing:
    """λ_t (B, 1, 1, 1) or a float, multiplying ∇‖A x_t − y‖₂² (the paper's Eq. 5)."""

    def __call__(self, level: NoiseLevel, sigma_y: Tensor) -> Tensor | float:
        raise NotImplementedError


class Likelihood(Annealing):
    """λ_t = scale/(2 (σ_y² + γ_t²)), γ_t = gamma σ_t: the score of N(A x_t, σ_y² + γ_t²) (Jalal et al. 2021, Sec. 3).

    Raises ValueError unless scale ≥ 0 and gamma > 0.
    """

    def __init__(self, scale: float = 1.0, gamma: float = 1.0) -> None:
        if not (0.0 <= scale < inf and 0.0 < gamma < inf):
            raise ValueError(f"the annealing needs scale ≥ 0 and gamma > 0, got scale={scale}, gamma={gamma}; set solver.annealing.*")
        self.scale, self.gamma = scale, gamma

    def __call__(self, level: NoiseLevel, sigma_y: Tensor) -> Tensor:
        return self.scale / (2.0 * (sigma_y.square() + (self.gamma * level.sigma) ** 2))


class Power(Annealing):
    """λ_t = scale σ_t^exponent; constant at exponent 0.

    Raises ValueError for a negative scale.
    """

    def __init__(self, scale: float = 1.0, exponent: float = 0.0) -> None:
        if not 0.0 <= scale < inf:
            raise ValueError(f"the annealing needs scale ≥ 0, got {scale}; set solver.annealing.scale")
        self.scale, self.exponent = scale, exponent

    def __call__(self, level: NoiseLevel, sigma_y: Tensor) -> float:
        return self.scale * level.sigma**self.exponent
