"""The law of a list of images."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, pi

import torch
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.diffusion.analytic.laws import Law, checked_weights
from diffusion_priors.diffusion.analytic.linear_map import LinearMap
from diffusion_priors.diffusion.levels import NoiseLevel

AT_ONCE = 2**24
"""Numbers of the images that are in double precision at the same time."""


class Empirical(Law):
    """p(x0) = Σ_i w_i δ(x0 − x_i), so p_t(x_t) = Σ_i w_i N(x_t; α x_i, σ² I).

    `images` (N, C, H, W) are the x_i. They are kept in float32; every sum over them is in double precision. Without `weights` each
    has 1/N. At low noise the responsibilities r_i are those of the nearest image alone, and x̂0 is that image.

    Raises ValueError for weights that are no weights.
    """

    discrete = True
    images: Tensor
    squares: Tensor
    log_weights: Tensor

    def __init__(self, images: Tensor, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.shape = (images.shape[1], images.shape[2], images.shape[3])
        self.register_buffer("images", images.float())
        self.register_buffer("squares", torch.cat([part.square().sum(1) for part in self._parts()]))
        self.register_buffer("log_weights", checked_weights(weights, len(images)).log())

    def _parts(self) -> list[Tensor]:
        """The images as rows (n, D) in double precision, a few at a time."""
        flat = self.images.flatten(1)
        return [part.double() for part in flat.split(max(1, AT_ONCE // flat.shape[1]))]

    def inner_products(self, x: Tensor) -> Tensor:
        """xᵀ x_i for rows x (B, D), (B, N)."""
        return LinearMap.apply(x, self._inner_products, self._combined)

    def combined(self, weights: Tensor) -> Tensor:
        """Σ_i c_i x_i for rows c (B, N), (B, C, H, W)."""
        return LinearMap.apply(weights, self._combined, self._inner_products).view(-1, *self.shape)

    def _inner_products(self, x: Tensor) -> Tensor:
        return torch.cat([x @ part.mT for part in self._parts()], dim=1)

    def _combined(self, weights: Tensor) -> Tensor:
        parts = self._parts()
        shares = weights.split([len(part) for part in parts], dim=1)
        return sum((share @ part for share, part in zip(shares, parts, strict=True)), weights.new_zeros(()))

    def _logits(self, x: Tensor, level: NoiseLevel) -> Tensor:
        """log w_i − ‖x − α x_i‖²/(2σ²) without the part that all i share, ‖x‖²/(2σ²): (B, N)."""
        distances = level.alpha**2 * self.squares - 2.0 * level.alpha * self.inner_products(x.flatten(1))
        return self.log_weights - distances / (2.0 * level.sigma**2)

    def responsibilities(self, x: Tensor, level: NoiseLevel) -> Tensor:
        """r_i = p(x0 = x_i | x_t = x) = softmax_i(log w_i − ‖x − α x_i‖²/(2σ²)), (B, N)."""
        return self._logits(x, level).softmax(1)

    def log_density(self, x: Tensor, level: NoiseLevel) -> Tensor:
        shared = x.flatten(1).square().sum(1) / (2.0 * level.sigma**2) + 0.5 * x[0].numel() * log(2.0 * pi * level.sigma**2)
        return self._logits(x, level).logsumexp(1) - shared

    def score(self, x: Tensor, level: NoiseLevel) -> Tensor:
        """(α x̂0 − x)/σ²."""
        return level.score(x, self.x0(x, level))

    def x0(self, x: Tensor, level: NoiseLevel) -> Tensor:
        """E[x0 | x_t = x] = Σ_i r_i x_i."""
        return self.combined(self.responsibilities(x, level))

    def covariance_times(self, x: Tensor, level: NoiseLevel, v: Tensor) -> Tensor:
        """Σ_i r_i (x_i − x̂0)(x_i − x̂0)ᵀ v."""
        chances = self.responsibilities(x, level)
        x0 = self.combined(chances)
        along = chances * (self.inner_products(v.flatten(1)) - (x0 * v).flatten(1).sum(1, keepdim=True))
        return self.combined(along)  # Σ_i of `along` is 0, so x̂0 needs not be subtracted again

    def draw(self, generators: Sequence[Generator]) -> Tensor:
        """x0 ~ p(x0), (B, C, H, W), image b from generator b."""
        weights = self.log_weights.exp().cpu().numpy()
        chosen = [generator.choice(len(weights), p=weights / weights.sum()) for generator in generators]
        return self.images[chosen].double()
