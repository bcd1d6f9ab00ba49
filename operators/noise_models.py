"""Measurement noise: y = A(x0) + n. Images are in [-1, 1], and so is every sigma unless it says otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import torch
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.operators.base import Operator


@dataclass(frozen=True)
class Measurement:
    """`y` (B, C', H', W') and `sigma_y` (B, 1, 1, 1), the standard deviation of its noise, both in [-1, 1] units."""

    y: Tensor
    sigma_y: Tensor


class NoiseModel:
    """n drawn per image from its own generator. `label` states the strength in both units."""

    label = ""

    def sample(self, y: Tensor, generators: Sequence[Generator]) -> Tensor:
        """Noiseless y (B, C', H', W') → noisy y, image b from generator b, one generator an image."""
        raise NotImplementedError

    def sigma_y(self, y: Tensor, support: Tensor) -> Tensor:
        """The noise's standard deviation (B, 1, 1, 1), as it is known from a measured y and its support."""
        raise NotImplementedError

    def measure(self, operator: Operator, x0: Tensor, generators: Sequence[Generator]) -> Measurement:
        """y = A(x0) + n; entries that are not measured (missing pixels) carry no noise, unlike in the code of DPS."""
        return self.measured(operator, self.sample(operator(x0), generators))

    def measured(self, operator: Operator, y: Tensor) -> Measurement:
        """A y that was already measured: what is not in its support is set to 0."""
        support = operator.support(y)
        y = y * support
        return Measurement(y, self.sigma_y(y, support))


class Gaussian(NoiseModel):
    """n ~ N(0, σ² I), σ in [-1, 1] units: σ = 0.05 here is 0.025 on [0, 1] images, as in the code of DPS.

    Raises ValueError for a negative σ.
    """

    def __init__(self, sigma: float = 0.05) -> None:
        if not 0.0 <= sigma < inf:
            raise ValueError(f"a standard deviation must be finite and not negative, got sigma={sigma}; set noise_model.sigma")
        self.sigma = sigma
        self.label = f"sigma_y {sigma:g} in [-1, 1] = {sigma / 2:g} in [0, 1]"

    def sample(self, y: Tensor, generators: Sequence[Generator]) -> Tensor:
        z = torch.stack([torch.from_numpy(g.standard_normal(y.shape[1:])) for g in generators])
        return y + self.sigma * z.to(y)

    def sigma_y(self, y: Tensor, support: Tensor) -> Tensor:
        return y.new_full((y.shape[0], 1, 1, 1), self.sigma)


class Poisson(NoiseModel):
    """(y + 1)/2 ~ Poisson(peak · (A x0 + 1)/2)/peak: `peak` photons at white; negative light counts as none.

    DPS has peak 255. σ_y, which the solvers take for Gaussian, is its root mean square, √(mean (y+1)/2 / peak)
    in [0, 1] units, estimated from y. Raises ValueError where peak is not positive.
    """

    def __init__(self, peak: float = 255.0) -> None:
        if not 0.0 < peak < inf:
            raise ValueError(f"the photons at white must be positive and finite, got peak={peak}; set noise_model.peak")
        self.peak = peak
        grey = (0.5 / peak) ** 0.5
        self.label = f"Poisson, {peak:g} photons at white: sigma_y at mid-grey {2 * grey:.3g} in [-1, 1] = {grey:.3g} in [0, 1]"

    def sample(self, y: Tensor, generators: Sequence[Generator]) -> Tensor:
        rate = (self.peak * (y + 1.0) / 2.0).clamp_min(0.0).cpu().double().numpy()
        counts = torch.stack([torch.from_numpy(g.poisson(r)) for r, g in zip(rate, generators, strict=True)])
        return counts.to(y) / self.peak * 2.0 - 1.0

    def sigma_y(self, y: Tensor, support: Tensor) -> Tensor:
        support = support.expand_as(y)
        light = (((y + 1.0) / 2.0).clamp_min(0.0) * support).sum((1, 2, 3), keepdim=True) / support.sum((1, 2, 3), keepdim=True)
        return 2.0 * (light / self.peak).sqrt()


class NoNoise(NoiseModel):
    """n = 0."""

    label = "no noise"

    def sample(self, y: Tensor, generators: Sequence[Generator]) -> Tensor:
        return y

    def sigma_y(self, y: Tensor, support: Tensor) -> Tensor:
        return y.new_zeros((y.shape[0], 1, 1, 1))
