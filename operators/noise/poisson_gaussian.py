"""Poisson-Gaussian noise: photons are counted, and reading the counts adds Gaussian noise (Foi et al. 2008)."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log, pi

import torch
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.operators.base import IMAGE_UNIT
from diffusion_priors.operators.noise_models import NoiseModel, Poisson


class PoissonGaussian(NoiseModel):
    """y = 2k/peak − 1 + σ z, k ~ Poisson(λ), λ = peak (A x0 + 1)/2: `peak` photons at white, read noise σ in the unit of y.

    p(y) = Σ_k Poisson(k; λ) N(y; 2k/peak − 1, σ²). The sum is over the counts around the most probable one. It is exact up
    to rounding there; where the counts spread over more than `reach`/8 it is their trapezoid rule, with a relative error
    below 1e-6. Its gradient is that of Poisson noise with k replaced by E[k | y].

    σ_y, for solvers that take the noise for Gaussian, is √(σ² + 4 light/peak), with the mean light estimated from y.
    Raises ValueError where peak or σ is not positive, and for a complex y.
    """

    reach = 32

    def __init__(self, peak: float = 255.0, sigma: float = 0.05) -> None:
        self.poisson = Poisson(peak)
        if not 0.0 < sigma < inf:
            raise ValueError(f"the read noise must be positive, got sigma={sigma}; set noise_model.sigma, or noise_model=poisson for none")
        self.peak, self.deviation = peak, sigma
        self.spread = peak * sigma / 2.0
        """The standard deviation of the read noise, in photons."""

    def label(self, unit: str) -> str:
        grey = (self.deviation**2 + 2.0 / self.peak) ** 0.5
        other = f" = {grey / 2:.3g} in [0, 1]" if unit == IMAGE_UNIT else ""
        photons = f"{self.peak:g} photons at white and read noise {self.deviation:g}"
        return f"Poisson-Gaussian, {photons}: sigma_y at mid-grey {grey:.3g} in {unit}{other}"

    def sample(self, clean: Tensor, generators: Sequence[Generator]) -> Tensor:
        counted = self.poisson.sample(clean, generators)
        z = torch.stack([torch.from_numpy(generator.standard_normal(clean.shape[1:])) for generator in generators])
        return counted + self.deviation * z.to(clean)

    def nll(self, y: Tensor, clean: Tensor, support: Tensor) -> Tensor:
        """Σ −log p(y)."""
        log_density, _ = self._count(y, clean)
        return torch.where(support > 0.0, -log_density, 0.0).flatten(1).sum(1).to(clean)

    def nll_gradient(self, y: Tensor, clean: Tensor, support: Tensor) -> Tensor:
        """peak/2 · (1 − E[k | y]/λ), with λ at least Poisson's `darkest`."""
        rate = self.poisson.photons(clean).clamp_min(Poisson.darkest)
        _, count = self._count(y, rate / self.peak * 2.0 - 1.0)
        return support * (self.peak / 2.0) * (1.0 - count.to(clean) / rate)

    def sigma(self, y: Tensor, support: Tensor) -> Tensor:
        return (self.poisson.sigma(y, support).square() + self.deviation**2).sqrt()

    def _count(self, y: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """(log p(y), E[k | y]) per entry, in double precision.

        log p is log-concave in k, with its maximum where k/s² + log k = log λ + κ/s², κ = peak (y + 1)/2, s the read noise.
        """
        seen, rate = (self.peak * (y.double() + 1.0) / 2.0), self.poisson.photons(clean).double()
        variance = self.spread**2
        mode = (variance * _lambert((rate / variance).clamp_min(1e-300).log() + seen / variance)).detach()
        width = (mode * variance / (mode + variance)).sqrt()
        stride = (8.0 * width / self.reach).clamp_min(1.0)
        middle = torch.where(stride > 1.0, mode, mode.round())

        def exponent(k: Tensor) -> Tensor:
            poisson = torch.xlogy(k, rate) - rate - torch.lgamma(k.clamp_min(0.0) + 1.0)
            return torch.where(k >= 0.0, poisson - (seen - k).square() / (2.0 * variance), -inf)

        top = exponent(middle)
        total, first = torch.zeros_like(top), torch.zeros_like(top)
        finite = top.detach().clamp_min(torch.finfo(top.dtype).min)
        for step in range(-self.reach, self.reach + 1):
            k = middle + step * stride
            share = (exponent(k) - finite).exp()
            total, first = total + share, first + k * share
        constant = log(self.peak / 2.0) - 0.5 * log(2.0 * pi * variance)  # counts → the unit of y
        return finite + (total * stride).log() + constant, first / total


def _lambert(c: Tensor) -> Tensor:
    """The w > 0 with w + log w = c, by Newton's method."""
    w = torch.where(c > 1.0, c - c.clamp_min(1.0).log(), c.clamp_max(1.0).exp())
    for _ in range(6):
        w = (w * (1.0 + c - w.log()) / (1.0 + w)).clamp_min(torch.finfo(c.dtype).tiny)
    return w
