"""Finitely many images with weights, in double precision: the exact posterior of an empirical prior."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy import ndarray

from diffusion_priors.evaluation.exact.known_law import Contents

NEAR = 0.02
"""Root mean square over the pixels, in [-1, 1] units: 2.5 of 255 grey levels."""


@dataclass(frozen=True)
class WeightedImages:
    """Σ_i w_i δ(x − x_i): `weights` (N,) and `images` (N, D)."""

    weights: ndarray
    images: ndarray

    @cached_property
    def mean(self) -> ndarray:
        return self.weights @ self.images

    @cached_property
    def covariance(self) -> ndarray:
        """Σ_i w_i (x_i − m)(x_i − m)ᵀ."""
        apart = self.images - self.mean
        return (apart.T * self.weights) @ apart

    def sample(self, count: int, generator: np.random.Generator) -> ndarray:
        """(count, D) independent draws."""
        return self.images[generator.choice(len(self.weights), count, p=self.weights)]

    def part_of(self, x: ndarray) -> ndarray:
        """The nearest image of each row of x (B, D)."""
        return ((self.images**2).sum(1) - 2.0 * x @ self.images.T).argmin(1)

    def regions(self, axes: ndarray, generator: np.random.Generator) -> Contents:
        """on_image: the share of the samples that are one of the images, up to `NEAR`. There is no density to draw a region with."""

        def contents(samples: ndarray) -> dict[str, float]:
            apart = samples - self.images[self.part_of(samples)]
            return {"on_image": float((np.sqrt((apart**2).mean(1)) < NEAR).mean())}

        return contents
