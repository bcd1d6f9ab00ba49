"""Gaussian mixtures over vectors, in double precision: the exact posterior of a Gaussian or a mixture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy import ndarray
from scipy.special import logsumexp

from diffusion_priors.evaluation.exact.known_law import Contents

REGIONS = (0.5, 0.95)
DRAWS = 4000
"""Number of exact samples that set the thresholds of the regions: a content of 0.5 is then met to 0.008."""


@dataclass(frozen=True)
class CovarianceFactor:
    """A covariance (D, D), symmetric and positive semidefinite, with what its eigendecomposition gives."""

    matrix: ndarray

    @cached_property
    def eigen(self) -> tuple[ndarray, ndarray]:
        values, vectors = np.linalg.eigh(self.matrix)
        return np.maximum(values, 0.0), vectors

    @cached_property
    def root(self) -> ndarray:
        """R with R Rᵀ = the matrix."""
        values, vectors = self.eigen
        return vectors * np.sqrt(values)

    def log_density(self, residuals: ndarray) -> ndarray:
        """log N(r; 0, the matrix) for rows r (B, D). Raises ValueError for a singular matrix."""
        values, vectors = self.eigen
        if not values[0] > 1e-12 * values[-1]:
            raise ValueError("a singular covariance has no density: nothing varies along one of its directions")
        distances = ((residuals @ vectors) ** 2 / values).sum(1)
        return -0.5 * (distances + np.log(2.0 * np.pi * values).sum())


@dataclass(frozen=True)
class GaussianMixture:
    """Σ_k w_k N(m_k, C_k): `weights` (K,), `means` (K, D), and `covariances`, which may contain the same object several times."""

    weights: ndarray
    means: ndarray
    covariances: Sequence[CovarianceFactor]

    @cached_property
    def mean(self) -> ndarray:
        return self.weights @ self.means

    @cached_property
    def covariance(self) -> ndarray:
        """Σ_k w_k (C_k + (m_k − m)(m_k − m)ᵀ)."""
        apart = self.means - self.mean
        within = sum(weight * factor.matrix for weight, factor in zip(self.weights, self.covariances, strict=True))
        return within + (apart.T * self.weights) @ apart

    def sample(self, count: int, generator: np.random.Generator) -> ndarray:
        """(count, D) independent draws."""
        chosen = generator.choice(len(self.weights), count, p=self.weights)
        x = generator.standard_normal((count, self.means.shape[1]))
        for k in np.unique(chosen):
            x[chosen == k] = self.means[k] + x[chosen == k] @ self.covariances[k].root.T
        return x

    def log_density(self, x: ndarray) -> ndarray:
        """(B,) for rows x (B, D)."""
        return logsumexp(self._weighted(x), axis=0)

    def part_of(self, x: ndarray) -> ndarray:
        """The component that each row of x (B, D) most probably came from."""
        return self._weighted(x).argmax(0)

    def _weighted(self, x: ndarray) -> ndarray:
        """log w_k N(x; m_k, C_k), (K, B)."""
        with np.errstate(divide="ignore"):  # a weight may be 0
            logs = np.log(self.weights)
        densities = [factor.log_density(x - mean) for mean, factor in zip(self.means, self.covariances, strict=True)]
        return np.array(densities) + logs[:, None]

    def regions(self, axes: ndarray, generator: np.random.Generator) -> Contents:
        """inside_50, inside_95: the share of the samples inside the highest-density region of that content.

        Its threshold is a quantile of the densities of exact samples (Hyndman 1996, Sec. 3), along the axes.
        """
        projected = self.along(axes)
        heights = projected.log_density(projected.sample(DRAWS, generator))
        thresholds = np.quantile(heights, [1.0 - content for content in REGIONS])

        def contents(samples: ndarray) -> dict[str, float]:
            inside = (projected.log_density(samples @ axes) >= thresholds[:, None]).mean(1)
            return {f"inside_{round(100 * content)}": float(share) for content, share in zip(REGIONS, inside, strict=True)}

        return contents

    def along(self, axes: ndarray) -> GaussianMixture:
        """The law of the coordinates Vᵀx along the columns of V (D, k)."""
        projected: dict[int, CovarianceFactor] = {}
        for factor in self.covariances:
            projected.setdefault(id(factor), CovarianceFactor(axes.T @ factor.matrix @ axes))
        return GaussianMixture(self.weights, self.means @ axes, [projected[id(factor)] for factor in self.covariances])
