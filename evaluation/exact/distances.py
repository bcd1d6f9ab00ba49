"""How far a set of samples is from a law that is known: distances, errors of moments, regions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from diffusion_priors.evaluation.exact.mixtures import FlatMixture

REGIONS = (0.5, 0.95)
DRAWS = 4000
"""Exact samples from which the regions' thresholds are taken: a content of 0.5 is then met to 0.008."""


@dataclass(frozen=True)
class Reference:
    """A posterior, a set of exact samples (N, D), the axes (D, k) that regions are looked at along, their thresholds."""

    posterior: FlatMixture
    samples: ndarray
    axes: ndarray
    thresholds: tuple[float, ...]

    @classmethod
    def of(cls, posterior: FlatMixture, count: int, most_axes: int, generator: np.random.Generator) -> Reference:
        """`most_axes` bounds k: the posterior covariance's leading eigenvectors, all of them where there are fewer."""
        samples = posterior.sample(count, generator)
        axes = leading(posterior.covariance, most_axes)
        seen = posterior.along(axes)
        heights = seen.log_density(seen.sample(DRAWS, generator))
        return cls(posterior, samples, axes, tuple(np.quantile(heights, [1.0 - content for content in REGIONS])))

    @property
    def scale(self) -> float:
        """√(tr C / D): the posterior's standard deviation, of an average direction."""
        return float(np.sqrt(np.trace(self.posterior.covariance) / len(self.posterior.mean)))


def leading(covariance: ndarray, most: int) -> ndarray:
    """Unit vectors along which most varies, (D, k), largest first."""
    _, vectors = np.linalg.eigh(covariance)
    return vectors[:, ::-1][:, :most]


def sliced_wasserstein(x: ndarray, y: ndarray, directions: ndarray) -> float:
    """SW₂ = (mean over directions u of W₂²(uᵀx, uᵀy))^½ (Bonneel et al. 2015, Eq. 8), x and y of equal numbers of rows.

    W₂ in one dimension pairs the sorted values. `directions` are unit vectors (D, n).
    """
    along_x, along_y = np.sort(x @ directions, axis=0), np.sort(y @ directions, axis=0)
    return float(np.sqrt(((along_x - along_y) ** 2).mean()))


def figures(samples: ndarray, reference: Reference, directions: ndarray) -> dict[str, float]:
    """What tells samples (N, D) from the posterior. With N exact samples each has a floor that is not its ideal.

    w2: sliced Wasserstein distance to as many exact samples, over the posterior's scale; ideally 0.
    mean: ‖mean − μ‖/√(tr C); ideally 0, √(1/N) for exact samples.
    covariance: ‖Cov − C‖_F/‖C‖_F, along the reference's axes; ideally 0.
    spread: √(tr Cov / tr C), below 1 where samples vary too little.
    inside_50, inside_95: the share of samples inside the posterior's highest-density regions of that content, whose
    threshold is a quantile of exact samples' densities (Hyndman 1996, Sec. 3), along the same axes.
    """
    posterior, axes = reference.posterior, reference.axes
    kept, along = reference.samples[: len(samples)], samples @ axes
    total = np.trace(posterior.covariance)
    covariance, exact = np.atleast_2d(np.cov(along.T)), axes.T @ posterior.covariance @ axes
    seen = posterior.along(axes).log_density(along)
    contents = {f"inside_{round(100 * c)}": float((seen >= t).mean()) for c, t in zip(REGIONS, reference.thresholds, strict=True)}
    return {
        "w2": sliced_wasserstein(samples, kept, directions) / reference.scale,
        "mean": float(np.linalg.norm(samples.mean(0) - posterior.mean) / np.sqrt(total)),
        "covariance": float(np.linalg.norm(covariance - exact) / np.linalg.norm(exact)),
        "spread": float(np.sqrt(samples.var(0, ddof=1).sum() / total)),
    } | contents


def unit_directions(side: int, count: int, generator: np.random.Generator) -> ndarray:
    """(D, count) directions, uniform on the sphere."""
    drawn = generator.standard_normal((side, count))
    return drawn / np.linalg.norm(drawn, axis=0)
