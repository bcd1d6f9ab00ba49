"""Laplace noise: independent errors with heavier tails than Gaussian ones."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log

import torch
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.operators.noise.components import both_units, components, drawn_like, summed
from diffusion_priors.operators.noise_models import NoiseModel


class Laplace(NoiseModel):
    """p(n) = exp(−|n|/b)/(2b) for each real component, b = σ/√2: then its standard deviation is σ, in the unit of y.

    −log p is the sum of absolute residuals. Raises ValueError where σ is not positive.
    """

    def __init__(self, sigma: float = 0.05) -> None:
        if not 0.0 < sigma < inf:
            raise ValueError(f"Laplace noise needs a positive, finite standard deviation, got sigma={sigma}; set noise_model.sigma")
        self.deviation, self.scale = sigma, sigma / 2.0**0.5

    def label(self, unit: str) -> str:
        return f"Laplace, sigma_y {both_units(self.deviation, unit)}"

    def sample(self, clean: Tensor, generators: Sequence[Generator]) -> Tensor:
        return clean + self.scale * drawn_like(clean, generators, lambda generator, shape: generator.laplace(size=shape))

    def nll(self, y: Tensor, clean: Tensor, support: Tensor) -> Tensor:
        """Σ |y − A x0|/b + log 2b."""
        return summed(components(y - clean).abs() / self.scale + log(2.0 * self.scale), support, y)

    def nll_gradient(self, y: Tensor, clean: Tensor, support: Tensor) -> Tensor:
        """sign(A x0 − y)/b, 0 where the residual is 0."""
        slope = components(clean - y).sign() / self.scale
        return support * (torch.view_as_complex(slope) if y.is_complex() else slope)

    def sigma(self, y: Tensor, support: Tensor) -> Tensor:
        return y.real.new_full((len(y), 1, 1, 1), self.deviation)
