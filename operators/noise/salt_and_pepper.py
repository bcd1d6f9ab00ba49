"""Salt-and-pepper noise: some values are lost and read black or white, the others carry Gaussian noise."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log, pi

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.operators.noise.components import both_units
from diffusion_priors.operators.noise_models import NoiseModel


class SaltAndPepper(NoiseModel):
    """p(y) = q/2 [y = −1] + q/2 [y = 1] + (1 − q) N(y; A x0, σ²): q is `probability`, one value is lost independently of the others.

    This is a density with respect to the Lebesgue measure plus one point mass at −1 and at 1. So a value of exactly ±1 counts
    as lost and says nothing of x0; any other value has Gaussian noise. With σ = 0 the law has no density.

    σ_y, for solvers that take the noise for Gaussian, is its root mean square, estimated from y: lost values dominate it.
    Raises ValueError where q lies outside (0, 1) or σ is negative, and for a complex y.
    """

    def __init__(self, probability: float = 0.1, sigma: float = 0.05) -> None:
        if not 0.0 < probability < 1.0:
            raise ValueError(f"the probability of a lost value must lie between 0 and 1, got {probability}; set noise_model.probability")
        if not 0.0 <= sigma < inf:
            raise ValueError(f"a standard deviation must be finite and not negative, got sigma={sigma}; set noise_model.sigma")
        self.probability, self.deviation = probability, sigma
        self.has_density = self.has_gradient = sigma > 0.0

    def label(self, unit: str) -> str:
        return f"salt and pepper, {self.probability:.3g} of the values lost, the others sigma {both_units(self.deviation, unit)}"

    def sample(self, clean: Tensor, generators: Sequence[Generator]) -> Tensor:
        self._check_real(clean)
        shape = clean.shape[1:]
        chance = torch.from_numpy(np.stack([generator.random(shape) for generator in generators])).to(clean.device)
        z = torch.from_numpy(np.stack([generator.standard_normal(shape) for generator in generators])).to(clean)
        extreme = torch.where(chance < self.probability / 2.0, -1.0, 1.0).to(clean)
        return torch.where(chance < self.probability, extreme, clean + self.deviation * z)

    def nll(self, y: Tensor, clean: Tensor, support: Tensor) -> Tensor:
        """Σ −log q/2 where y = ±1, (y − A x0)²/(2σ²) + log(2πσ²)/2 − log(1 − q) elsewhere."""
        self._check_density(y)
        constant = 0.5 * log(2.0 * pi * self.deviation**2) - log(1.0 - self.probability)
        read = (y - clean).square() / (2.0 * self.deviation**2) + constant
        values = torch.where(y.abs() == 1.0, -log(self.probability / 2.0), read)
        return torch.where(support > 0.0, values, 0.0).flatten(1).sum(1)

    def nll_gradient(self, y: Tensor, clean: Tensor, support: Tensor) -> Tensor:
        """(A x0 − y)/σ², 0 where y is lost."""
        self._check_density(y)
        return support * torch.where(y.abs() == 1.0, 0.0, (clean - y) / self.deviation**2)

    def sigma(self, y: Tensor, support: Tensor) -> Tensor:
        """√((1 − q) σ² + q (1 + m)), m the mean of (A x0)², from E y² = (1 − q)(m + σ²) + q."""
        support, axes, q, variance = support.expand(y.shape), tuple(range(1, y.ndim)), self.probability, self.deviation**2
        square = (y.square() * support).sum(axes) / support.sum(axes)
        clean = ((square - q) / (1.0 - q) - variance).clamp_min(0.0)
        return ((1.0 - q) * variance + q * (1.0 + clean)).sqrt().view(-1, 1, 1, 1)

    def _check_real(self, y: Tensor) -> None:
        if y.is_complex():
            raise ValueError("salt-and-pepper noise needs a real measurement, and the operator's is complex; set noise_model=gaussian")

    def _check_density(self, y: Tensor) -> None:
        self._check_real(y)
        if not self.has_density:
            raise ValueError("salt-and-pepper noise with sigma=0 has no density; set noise_model.sigma=0.05")
