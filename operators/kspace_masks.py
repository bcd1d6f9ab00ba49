"""Which entries of k-space are measured: masks (B or 1, 1, 1 or H, W), 1 where measured, the zero frequency in the middle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.random import Generator
from scipy.ndimage import maximum_filter
from torch import Tensor

from diffusion_priors.operators.array_file import read_array
from diffusion_priors.operators.base import uniform


class KSpaceMask:
    """A call gives the mask for images like `like`; `random` says that each image has its own, from its generator."""

    random = False

    def __call__(self, like: Tensor, generators: Sequence[Generator]) -> Tensor:
        raise NotImplementedError


class Accelerated(KSpaceMask):
    """1/`acceleration` of k-space is measured, with the middle in any case.

    The middle is `center_fraction` of each side that is undersampled (Zbontar et al. 2018, fastMRI: 0.08 of the columns at
    acceleration 4, 0.04 at 8).

    Raises ValueError where the centre alone is more than 1/`acceleration`.
    """

    sides = 1
    """The sides of k-space that are undersampled."""

    def __init__(self, acceleration: float = 4.0, center_fraction: float = 0.08) -> None:
        if not acceleration >= 1.0:
            raise ValueError(f"the acceleration must be at least 1, got {acceleration}; set operator.mask.acceleration")
        largest = (1.0 / acceleration) ** (1.0 / self.sides)
        if not 0.0 < center_fraction <= largest:
            raise ValueError(
                f"the centre must be more than 0 and at most {largest:.3g} of a side at this acceleration, "
                f"got {center_fraction}; set operator.mask.center_fraction"
            )
        self.acceleration, self.center_fraction = acceleration, center_fraction

    def center(self, side: int) -> slice:
        """The part of a side that is always measured: the zero frequency at least."""
        count = max(1, round(self.center_fraction * side))
        start = (side - count + 1) // 2
        return slice(start, start + count)

    def share(self, width: int) -> float:
        """The columns outside the centre to measure, as a fraction."""
        center = self.center(width)
        count = center.stop - center.start
        return max(0.0, width / self.acceleration - count) / max(1, width - count)

    def with_center(self, columns: Tensor) -> Tensor:
        columns[..., self.center(columns.shape[-1])] = 1.0
        return columns


class Equispaced(Accelerated):
    """Evenly spaced columns, from the first one, or with `random_offset` from a random one, per image, as in fastMRI."""

    def __init__(self, acceleration: float = 4.0, center_fraction: float = 0.08, random_offset: bool = False) -> None:
        super().__init__(acceleration, center_fraction)
        self.random = random_offset

    def __call__(self, like: Tensor, generators: Sequence[Generator]) -> Tensor:
        width = like.shape[-1]
        count = torch.arange(width, dtype=torch.float64).view(1, 1, 1, width)
        offset = uniform(generators, 1, 1, 1, like=count) if self.random else 0.0
        before, after = ((number * self.share(width) - offset).ceil() for number in (count, count + 1.0))
        return self.with_center((before < after).to(like))


class RandomColumns(Accelerated):
    """Each column outside the centre is measured with the same probability, per image."""

    random = True

    def __call__(self, like: Tensor, generators: Sequence[Generator]) -> Tensor:
        width = like.shape[-1]
        return self.with_center((uniform(generators, 1, 1, width, like=like) < self.share(width)).to(like))


class RandomFrequencies(Accelerated):
    """Each entry outside the centre is measured with the same probability, per image (Candès, Romberg & Tao 2006, without a centre)."""

    random = True
    sides = 2

    def __call__(self, like: Tensor, generators: Sequence[Generator]) -> Tensor:
        entries = like.shape[-2] * like.shape[-1]
        centre = torch.zeros(1, 1, *like.shape[-2:], dtype=torch.bool, device=like.device)
        centre[..., self.center(like.shape[-2]), self.center(like.shape[-1])] = True
        dense = int(centre.sum())
        share = max(0.0, entries / self.acceleration - dense) / max(1, entries - dense)
        return ((uniform(generators, 1, *like.shape[-2:], like=like) < share) | centre).to(like)


class PoissonDisc(Accelerated):
    """Single entries at random, no two closer than a distance: the largest for which enough of them fit, per image.

    Both directions are undersampled, as the two phase encodings of a 3D scan are (Lustig et al. 2007 on random, Cook 1986 on
    Poisson-disc sampling). The centre is a rectangle, and measured densely; outside, the density is even.
    """

    random = True
    sides = 2

    def __call__(self, like: Tensor, generators: Sequence[Generator]) -> Tensor:
        masks = [torch.from_numpy(self._mask(like.shape[-2], like.shape[-1], generator)) for generator in generators]
        return torch.stack(masks)[:, None].to(like)

    def _mask(self, height: int, width: int, generator: Generator) -> np.ndarray:
        order = generator.random((height, width))
        centre = np.zeros((height, width), dtype=bool)
        centre[self.center(height), self.center(width)] = True
        wanted = max(0, round(height * width / self.acceleration) - int(centre.sum()))
        chosen = centre.copy()
        for squared in _squared_distances((height * width - int(centre.sum())) / max(1, wanted)):
            apart = spread(order, squared) & ~centre
            if apart.sum() >= wanted:
                chosen.flat[np.flatnonzero(apart)[np.argsort(order[apart])[::-1][:wanted]]] = True
                break
        return chosen


def _squared_distances(area: float) -> list[int]:
    """The squared distances of points of a grid, the largest first, from what points with an `area` each may have.

    Without a border none exceeds 2/√3 times the area, that of a hexagonal lattice.
    """
    largest = 1.3 * area + 1.0
    reach = range(int(largest**0.5) + 1)
    return sorted({a * a + b * b for a in reach for b in reach if a * a + b * b <= largest}, reverse=True)


def spread(order: np.ndarray, squared: int) -> np.ndarray:
    """Points of a grid with no two at a squared distance below `squared`, to which none can be added.

    They are those that remain when all points come in the `order` of their values, the largest first, and each stays that is
    apart from the ones before it.
    """
    reach = int(squared**0.5) + 1
    row, column = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    near = (row**2 + column**2 < squared) | (row**2 + column**2 == 0)
    open_, kept = np.ones(order.shape, dtype=bool), np.zeros(order.shape, dtype=bool)
    while open_.any():
        candidates = np.where(open_, order, -1.0)
        first = open_ & (candidates == maximum_filter(candidates, footprint=near, mode="constant", cval=-1.0))
        kept |= first
        open_ &= ~maximum_filter(first, footprint=near, mode="constant", cval=0)
    return kept


class GivenMask(KSpaceMask):
    """The mask of a file, (W,) columns or (H, W) entries: measured where it is not 0. It must have the size of the images.

    Raises ValueError where it cannot be read or has another shape.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.measured = read_array(path, "mask", "operator.mask.path") != 0
        if self.measured.ndim not in (1, 2) or not self.measured.any():
            raise ValueError(
                f"the mask {path} must be (W,) or (H, W) and not 0 somewhere, got shape {self.measured.shape}; set operator.mask.path"
            )

    def __call__(self, like: Tensor, generators: Sequence[Generator]) -> Tensor:
        if self.measured.shape != tuple(like.shape[-self.measured.ndim :]):
            raise ValueError(
                f"the mask {self.path} is {self.measured.shape} and the images are {tuple(like.shape[-2:])}; set operator.mask.path"
            )
        return torch.from_numpy(np.atleast_2d(self.measured)).to(like)[None, None]
