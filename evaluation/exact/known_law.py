"""What every exact posterior can say, whatever its form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy import ndarray

Contents = Callable[[ndarray], dict[str, float]]
"""Samples (N, D) → the share of them in each region, by its name."""


class KnownLaw(Protocol):
    """A law over vectors made of K parts with weights: Gaussians, or single images. All in double precision."""

    @property
    def weights(self) -> ndarray:
        """(K,)."""
        ...

    @property
    def mean(self) -> ndarray:
        """(D,)."""
        ...

    @property
    def covariance(self) -> ndarray:
        """(D, D)."""
        ...

    def sample(self, count: int, generator: np.random.Generator) -> ndarray:
        """(count, D) independent draws."""
        ...

    def part_of(self, x: ndarray) -> ndarray:
        """The part to which each row of x (B, D) belongs, (B,) indices."""
        ...

    def regions(self, axes: ndarray, generator: np.random.Generator) -> Contents:
        """The regions where the law has its mass, along the columns of `axes` (D, k) if it has a density."""
        ...
