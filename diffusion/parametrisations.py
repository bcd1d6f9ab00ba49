"""Parametrisations: what a network's output means, turned into x̂0."""

from __future__ import annotations

from torch import Tensor

from diffusion.levels import NoiseLevel


class Parametrisation:
    """network output → x̂0 = E[x0 | x_t], in the network's own pixel units, (B, C, H, W)."""

    def x0(self, x: Tensor, output: Tensor, level: NoiseLevel) -> Tensor:
        raise NotImplementedError


class Eps(Parametrisation):
    """x̂0 = (x_t − σ ε̂)/α (Ho et al. 2020, Eq. 15)."""

    def x0(self, x, output, level):
        return (1.0 / level.alpha) * x.sub(output, alpha=level.sigma)


class X0(Parametrisation):
    """x̂0 = the output itself."""

    def x0(self, x, output, level):
        return output


class V(Parametrisation):
    """v = α ε − σ x0, so x̂0 = (α x_t − σ v̂)/(α² + σ²) (Salimans & Ho 2022, App. D)."""

    def x0(self, x, output, level):
        norm = level.alpha**2 + level.sigma**2
        return (level.alpha / norm * x).sub(output, alpha=level.sigma / norm)


class Score(Parametrisation):
    """x̂0 = (x_t + σ² ŝ)/α (Tweedie; the paper's Eq. 3)."""

    def x0(self, x, output, level):
        return (1.0 / level.alpha) * x.add(output, alpha=level.sigma**2)
