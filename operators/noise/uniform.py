"""Uniform noise, such as rounding to evenly spaced values makes it."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log

import torch
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.operators.noise.components import both_units, components, drawn_like, summed
from diffusion_priors.operators.noise_models import NoiseModel


class Uniform(NoiseModel):
    """n ~ U(−a, a) for each real component, a = √3 σ: then its standard deviation is σ, in the unit of y.

    The density is 1/(2a) within the bounds and 0 outside. −log p is a constant there and infinite elsewhere, so it has no
    gradient to follow: solvers that need one refuse it. Raises ValueError where σ is not positive.
    """

    has_gradient = False

    def __init__(self, sigma: float = 0.05) -> None:
        if not 0.0 < sigma < inf:
            raise ValueError(f"uniform noise needs a positive, finite standard deviation, got sigma={sigma}; set noise_model.sigma")
        self.deviation, self.bound = sigma, 3.0**0.5 * sigma

    def label(self, unit: str) -> str:
        return f"uniform within ±{self.bound:.3g}, sigma_y {both_units(self.deviation, unit)}"

    def sample(self, clean: Tensor, generators: Sequence[Generator]) -> Tensor:
        return clean + self.bound * drawn_like(clean, generators, lambda generator, shape: generator.uniform(-1.0, 1.0, shape))

    def nll(self, y: Tensor, clean: Tensor, support: Tensor) -> Tensor:
        """k log 2a for k real numbers in the support; infinite where one residual exceeds a."""
        distance = components(y - clean).abs()
        rounding = 4.0 * torch.finfo(distance.dtype).eps * (components(y).abs() + self.bound)  # y − A x0 is rounded, and so is y
        inside = torch.full_like(distance, log(2.0 * self.bound))
        return summed(inside.masked_fill(distance > self.bound + rounding, inf), support, y)

    def nll_gradient(self, y: Tensor, clean: Tensor, support: Tensor) -> Tensor:
        raise ValueError("the density of uniform noise has no gradient to follow; set noise_model=gaussian or choose another solver")

    def sigma(self, y: Tensor, support: Tensor) -> Tensor:
        return y.real.new_full((len(y), 1, 1, 1), self.deviation)
