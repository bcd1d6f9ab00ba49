"""Measurement noise: the law of y given A(x0). Every sigma is in the unit of y: [-1, 1] where y is an image."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log, pi

import torch
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.operators.base import IMAGE_UNIT


class NoiseModel:
    """p(y | A(x0)), each image's noise from its own generator.

    `clean` is A(x0) and `support` says which entries of y are measured (`Operator.support`). `has_density` is False
    where y is a function of A(x0), `has_gradient` where −log p(y | A(x0)) has none that a solver can follow. `gaussian` says
    that σ_y is all there is to know of the noise; of other laws, σ_y is what a solver for Gaussian noise takes.
    """

    has_density = True
    has_gradient = True
    gaussian = False

    def label(self, unit: str) -> str:
        """The strength as text, for an operator whose y is in `unit`; an image's in [0, 1] units too."""
        raise NotImplementedError

    def sample(self, clean: Tensor, generators: Sequence[Generator]) -> Tensor:
        """Noiseless y → noisy y, image b from generator b."""
        raise NotImplementedError

    def nll(self, y: Tensor, clean: Tensor, support: Tensor) -> Tensor:
        """−log p(y | clean) over the support, (B,), constants included."""
        raise NotImplementedError

    def nll_gradient(self, y: Tensor, clean: Tensor, support: Tensor) -> Tensor:
        """∇ of `nll` with respect to `clean`, shaped like y; for a complex one, ∂/∂Re + i ∂/∂Im."""
        with torch.inference_mode(False), torch.enable_grad():
            clean = clean.detach().clone().requires_grad_()
            return torch.autograd.grad(self.nll(y.clone(), clean, support.clone()).sum(), clean)[0]

    def sigma(self, y: Tensor, support: Tensor) -> Tensor:
        """The noise's standard deviation (B, 1, 1, 1), as it is known from a measured y and its support."""
        raise NotImplementedError


class Gaussian(NoiseModel):
    """n ~ N(0, σ² I), σ in the unit of y: σ = 0.05 in [-1, 1] is 0.025 on [0, 1] images, as in the code of DPS.

    For a complex y the noise is circular: real and imaginary part are independent, each of standard deviation σ.
    Raises ValueError for a negative σ.
    """

    gaussian = True

    def __init__(self, sigma: float = 0.05) -> None:
        if not 0.0 <= sigma < inf:
            raise ValueError(f"a standard deviation must be finite and not negative, got sigma={sigma}; set noise_model.sigma")
        self.std = sigma
        self.has_density = self.has_gradient = sigma > 0.0

    def label(self, unit: str) -> str:
        other = f" = {self.std / 2:g} in [0, 1]" if unit == IMAGE_UNIT else ""
        return f"sigma_y {self.std:g} in {unit}{other}"

    def sample(self, clean: Tensor, generators: Sequence[Generator]) -> Tensor:
        shape = (*clean.shape[1:], 2) if clean.is_complex() else clean.shape[1:]
        z = torch.stack([torch.from_numpy(g.standard_normal(shape)) for g in generators])
        return clean + self.std * (torch.view_as_complex(z) if clean.is_complex() else z).to(clean)

    def nll(self, y: Tensor, clean: Tensor, support: Tensor) -> Tensor:
        """Σ |y − A x0|²/(2σ²) + k log(2πσ²)/2, k real numbers in the support (two per complex entry)."""
        self._check_density()
        components = (2 if y.is_complex() else 1) * support.expand(y.shape).flatten(1).sum(1)
        squares = (support * (y - clean).abs().square()).flatten(1).sum(1)
        return squares / (2.0 * self.std**2) + 0.5 * log(2.0 * pi * self.std**2) * components

    def nll_gradient(self, y: Tensor, clean: Tensor, support: Tensor) -> Tensor:
        """(A x0 − y)/σ²."""
        self._check_density()
        return support * (clean - y) / self.std**2

    def sigma(self, y: Tensor, support: Tensor) -> Tensor:
        return y.real.new_full((len(y), 1, 1, 1), self.std)

    def _check_density(self) -> None:
        if not self.has_density:
            raise ValueError("Gaussian noise of sigma=0 has no density; set noise_model.sigma=0.05")


class Poisson(NoiseModel):
    """k = peak · (y + 1)/2 ~ Poisson(peak · (A x0 + 1)/2): `peak` photons at white; negative light counts as none.

    DPS has peak 255. σ_y, for solvers that take the noise for Gaussian, is its root mean square √(mean (y + 1)/2 / peak)
    in [0, 1] units, estimated from y. Raises ValueError where peak is not positive, or y is complex.
    """

    darkest = 1e-3
    """Photons: the least rate in the gradient, which is not bounded at 0."""
    brightest = 1e12
    """Photons at white. Their noise is already below what float32 resolves."""

    def __init__(self, peak: float = 255.0) -> None:
        if not 0.0 < peak <= self.brightest:
            raise ValueError(f"the photons at white must be positive and at most {self.brightest:g}, got peak={peak}; set noise_model.peak")
        self.peak = peak

    def label(self, unit: str) -> str:
        grey = (0.5 / self.peak) ** 0.5
        other = f" = {grey:.3g} in [0, 1]" if unit == IMAGE_UNIT else ""
        return f"Poisson, {self.peak:g} photons at white: sigma_y at mid-grey {2 * grey:.3g} in {unit}{other}"

    def sample(self, clean: Tensor, generators: Sequence[Generator]) -> Tensor:
        rate = self.photons(clean).cpu().double().numpy()
        counts = torch.stack([torch.from_numpy(g.poisson(r)) for r, g in zip(rate, generators, strict=True)])
        return counts.to(clean) / self.peak * 2.0 - 1.0

    def nll(self, y: Tensor, clean: Tensor, support: Tensor) -> Tensor:
        """Σ λ − k log λ + log k!, the rate λ and the count k in photons; infinite where light came from black."""
        rate, count = self.photons(clean), self.photons(y)
        return torch.where(support > 0.0, rate - torch.xlogy(count, rate) + torch.lgamma(count + 1.0), 0.0).flatten(1).sum(1)

    def nll_gradient(self, y: Tensor, clean: Tensor, support: Tensor) -> Tensor:
        """peak/2 · (1 − k/λ), with λ at least `darkest`: an estimate below black is pulled up, by a finite amount."""
        rate = self.photons(clean).clamp_min(self.darkest)
        return support * (self.peak / 2.0) * (1.0 - self.photons(y) / rate)

    def sigma(self, y: Tensor, support: Tensor) -> Tensor:
        support, axes = support.expand(y.shape), tuple(range(1, y.ndim))
        light = (((y + 1.0) / 2.0).clamp_min(0.0) * support).sum(axes) / support.sum(axes)
        return (2.0 * (light / self.peak).sqrt()).view(-1, 1, 1, 1)

    def photons(self, y: Tensor) -> Tensor:
        """Light in photons, negative light as none."""
        if y.is_complex():
            raise ValueError("Poisson noise needs a real measurement, and the operator's is complex; set noise_model=gaussian")
        return (self.peak * (y + 1.0) / 2.0).clamp_min(0.0)


class NoNoise(NoiseModel):
    """n = 0, the limit of Gaussian noise."""

    has_density = has_gradient = False
    gaussian = True

    def label(self, unit: str) -> str:
        return "no noise"

    def sample(self, clean: Tensor, generators: Sequence[Generator]) -> Tensor:
        return clean

    def nll(self, y: Tensor, clean: Tensor, support: Tensor) -> Tensor:
        raise ValueError("a measurement without noise has no density; set noise_model=gaussian noise_model.sigma=0.05")

    def nll_gradient(self, y: Tensor, clean: Tensor, support: Tensor) -> Tensor:
        return self.nll(y, clean, support)

    def sigma(self, y: Tensor, support: Tensor) -> Tensor:
        return y.real.new_zeros((len(y), 1, 1, 1))
