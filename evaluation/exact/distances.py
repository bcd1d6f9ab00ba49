"""How far a set of samples is from a known law: distances, errors of moments, contents of regions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from diffusion_priors.evaluation.exact.mixtures import GaussianMixture

REGIONS = (0.5, 0.95)
DRAWS = 4000
"""Number of exact samples that set the thresholds of the regions: a content of 0.5 is then met to 0.008."""


@dataclass(frozen=True)
class Reference:
    """A posterior, exact samples of it (N, D), and the regions: their axes (D, k) and their density thresholds."""

    posterior: GaussianMixture
    samples: ndarray
    axes: ndarray
    thresholds: tuple[float, ...]

    @classmethod
    def of(cls, posterior: GaussianMixture, count: int, most_axes: int, generator: np.random.Generator) -> Reference:
        """The axes are the leading eigenvectors of the posterior covariance, at most `most_axes` of them."""
        samples = posterior.sample(count, generator)
        axes = leading(posterior.covariance, most_axes)
        projected = posterior.along(axes)
        heights = projected.log_density(projected.sample(DRAWS, generator))
        return cls(posterior, samples, axes, tuple(np.quantile(heights, [1.0 - content for content in REGIONS])))

    @property
    def scale(self) -> float:
        """√(tr C / D): the posterior's standard deviation, averaged over all directions."""
        return float(np.sqrt(np.trace(self.posterior.covariance) / len(self.posterior.mean)))


def leading(covariance: ndarray, most: int) -> ndarray:
    """The unit eigenvectors with the largest eigenvalues, (D, k), largest first."""
    _, vectors = np.linalg.eigh(covariance)
    return vectors[:, ::-1][:, :most]


def sliced_wasserstein(x: ndarray, y: ndarray, directions: ndarray) -> float:
    """SW₂ = (mean over directions u of W₂²(uᵀx, uᵀy))^½ (Bonneel et al. 2015, Eq. 8), for x and y with equal numbers of rows.

    W₂ in one dimension pairs the sorted values. `directions` are unit vectors (D, n).
    """
    along_x, along_y = np.sort(x @ directions, axis=0), np.sort(y @ directions, axis=0)
    return float(np.sqrt(((along_x - along_y) ** 2).mean()))


def distances(samples: ndarray, reference: Reference, directions: ndarray) -> dict[str, float]:
    """How samples (N, D) differ from the posterior. Even N exact samples do not reach the ideal values: they give the floor.

    w2: sliced Wasserstein distance to as many exact samples, divided by the posterior's scale; ideally 0.
    mean: ‖mean − μ‖/√(tr C); ideally 0, √(1/N) for exact samples.
    covariance: ‖Cov − C‖_F/‖C‖_F, along the reference's axes; ideally 0.
    spread: √(tr Cov / tr C), below 1 if the samples vary too little.
    inside_50, inside_95: the share of samples inside the posterior's highest-density region of that content. The
    region's threshold is a quantile of the densities of exact samples (Hyndman 1996, Sec. 3), along the same axes.
    """
    posterior, axes = reference.posterior, reference.axes
    exact_samples, along = reference.samples[: len(samples)], samples @ axes
    total = np.trace(posterior.covariance)
    covariance, exact = np.atleast_2d(np.cov(along.T)), axes.T @ posterior.covariance @ axes
    heights = posterior.along(axes).log_density(along)
    contents = {f"inside_{round(100 * c)}": float((heights >= t).mean()) for c, t in zip(REGIONS, reference.thresholds, strict=True)}
    return {
        "w2": sliced_wasserstein(samples, exact_samples, directions) / reference.scale,
        "mean": float(np.linalg.norm(samples.mean(0) - posterior.mean) / np.sqrt(total)),
        "covariance": float(np.linalg.norm(covariance - exact) / np.linalg.norm(exact)),
        "spread": float(np.sqrt(samples.var(0, ddof=1).sum() / total)),
    } | contents


def unit_directions(side: int, count: int, generator: np.random.Generator) -> ndarray:
    """(side, count) directions, uniform on the sphere."""
    drawn = generator.standard_normal((side, count))
    return drawn / np.linalg.norm(drawn, axis=0)
