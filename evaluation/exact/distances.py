"""How far a set of samples is from a known law: distances, errors of moments and weights, contents of regions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from diffusion_priors.evaluation.exact.known_law import Contents, KnownLaw


@dataclass(frozen=True)
class Reference:
    """A posterior, exact samples of it (N, D), the axes of its largest variance (D, k), and its regions."""

    posterior: KnownLaw
    samples: ndarray
    axes: ndarray
    regions: Contents

    @classmethod
    def of(cls, posterior: KnownLaw, count: int, most_axes: int, generator: np.random.Generator) -> Reference:
        """The axes are the leading eigenvectors of the posterior covariance, at most `most_axes` of them."""
        samples = posterior.sample(count, generator)
        axes = leading(posterior.covariance, most_axes)
        return cls(posterior, samples, axes, posterior.regions(axes, generator))

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
    To these come the contents of the posterior's regions, and `weights` where it has several parts. A posterior of one image
    has no scale: the first four are then infinite or not a number.
    """
    posterior, axes = reference.posterior, reference.axes
    exact_samples, along = reference.samples[: len(samples)], samples @ axes
    total = np.trace(posterior.covariance)
    covariance, exact = np.atleast_2d(np.cov(along.T)), axes.T @ posterior.covariance @ axes
    with np.errstate(divide="ignore", invalid="ignore"):
        moments = {
            "w2": np.divide(sliced_wasserstein(samples, exact_samples, directions), reference.scale),
            "mean": np.linalg.norm(samples.mean(0) - posterior.mean) / np.sqrt(total),
            "covariance": np.linalg.norm(covariance - exact) / np.linalg.norm(exact),
            "spread": np.sqrt(samples.var(0, ddof=1).sum() / total),
        }
    return {key: float(value) for key, value in moments.items()} | reference.regions(samples) | weights(samples, posterior)


def weights(samples: ndarray, posterior: KnownLaw) -> dict[str, float]:
    """How the samples are shared among the parts of the posterior, its modes; nothing where it has only one.

    weights: half the sum over the parts of |share of the samples − weight|, the total variation distance; ideally 0.
    heaviest: the share of the samples in the part with the greatest weight.
    """
    if len(posterior.weights) == 1:
        return {}
    shares = np.bincount(posterior.part_of(samples), minlength=len(posterior.weights)) / len(samples)
    error = 0.5 * np.abs(shares - posterior.weights).sum()
    return {"weights": float(error), "heaviest": float(shares[posterior.weights.argmax()])}


def unit_directions(side: int, count: int, generator: np.random.Generator) -> ndarray:
    """(side, count) directions, uniform on the sphere."""
    drawn = generator.standard_normal((side, count))
    return drawn / np.linalg.norm(drawn, axis=0)
