"""Covariances in a few numbers: each makes one for images of any shape (C, H, W)."""

from __future__ import annotations

from math import inf, prod
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from diffusion_priors.diffusion.analytic.covariances import Covariance, Dense, Stationary
from diffusion_priors.diffusion.image_random import image_generator

Shape = tuple[int, int, int]


@runtime_checkable
class CovarianceShape(Protocol):
    """What makes a covariance for images of a shape (C, H, W)."""

    def __call__(self, shape: Shape) -> Covariance: ...


class PowerLaw:
    """P(f) ∝ max(f, 1/side)^−exponent: natural images have about 2 (Field 1987), white noise has 0.

    A pixel's standard deviation is `std`, in [-1, 1] units; two channels of it have the given `correlation`.
    Raises ValueError for std ≤ 0, a correlation outside [0, 1), or an exponent that is not finite.
    """

    def __init__(self, std: float = 0.3, exponent: float = 2.0, correlation: float = 0.9) -> None:
        if not 0.0 < std < inf:
            raise ValueError(f"a prior's standard deviation must be positive and finite, got std={std}; set prior.covariance.std")
        if not 0.0 <= correlation < 1.0:
            raise ValueError(f"the channels' correlation must lie in [0, 1), got {correlation}; set prior.covariance.correlation")
        if not -inf < exponent < inf:
            raise ValueError(f"the spectrum's exponent must be finite, got {exponent}; set prior.covariance.exponent")
        self.std, self.exponent, self.correlation = std, exponent, correlation

    def __call__(self, shape: Shape) -> Covariance:
        channels, height, width = shape
        rows, columns = (torch.fft.fftfreq(side, dtype=torch.float64) for side in (height, width))
        frequency = torch.hypot(rows[:, None], columns[None]).clamp_min(1.0 / max(height, width))
        spectrum = frequency**-self.exponent
        same = torch.full((channels, channels), self.correlation, dtype=torch.float64)
        return Stationary(self.std**2 * spectrum / spectrum.mean(), same.fill_diagonal_(1.0))


class RandomRotation:
    """Eigenvalues from `smallest` to `largest` in equal factors, along axes turned at random: by `seed`, the same for all.

    Raises ValueError unless 0 < smallest ≤ largest.
    """

    def __init__(self, smallest: float = 0.02, largest: float = 0.5, seed: int = 0) -> None:
        if not 0.0 < smallest <= largest < inf:
            raise ValueError(
                f"eigenvalues must be positive and in order, got {smallest} to {largest}; set prior.covariance.smallest, largest"
            )
        self.smallest, self.largest, self.seed = smallest, largest, seed

    def __call__(self, shape: Shape) -> Covariance:
        side = prod(shape)
        basis, _ = np.linalg.qr(image_generator(self.seed, side, "covariance").standard_normal((side, side)))
        matrix = (basis * np.geomspace(self.smallest, self.largest, side)) @ basis.T
        return Dense(torch.from_numpy((matrix + matrix.T) / 2), shape)


class FromFile:
    """A dense covariance in an .npy file, (D, D) with D = C·H·W, pixels in the order of channels, rows, columns.

    Raises ValueError where it cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, shape: Shape) -> Covariance:
        try:
            matrix = np.load(self.path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot read the covariance {self.path}: {error}; set prior.covariance.path to an .npy file") from error
        if matrix.dtype.kind not in "fiu":
            raise ValueError(f"the covariance {self.path} holds {matrix.dtype}, no numbers; set prior.covariance.path")
        return Dense(torch.from_numpy(matrix.astype(np.float64)), shape)
