"""Whether the samples of an image spread as much as they are wrong, for real images, whose posterior is not known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path

import numpy as np

from diffusion_priors.evaluation.statistics import estimate
from diffusion_priors.images.io import read_as_is
from diffusion_priors.runs.reading.records import records_by_image

BINS = 4096
"""Number of bins of the predicted standard deviation, on [0, 1] images. Groups of pixels consist of whole bins."""


class Calibration:
    """Coverage of pixel intervals from the samples of an image, on 8-bit images in [0, 1]. Each channel counts as a value of its own.

    `levels` are the nominal coverages of the intervals m ± t s √(1 + 1/N), with the samples' mean m and standard deviation s
    and Student's t for N − 1 degrees of freedom. They cover a new draw exactly if samples and truth are Gaussian (Hahn
    1969). The rank intervals [x₍ₖ₎, x₍N+1−k₎], k = 1 … N/2, need no such assumption: their nominal coverage is
    (N + 1 − 2k)/(N + 1) for every law (Wilks 1941). Ties share their ranks evenly.

    The same is computed for `groups` groups of pixels, sorted by predicted deviation (reliability by spread, Levi et al.
    2022): √mean s² (1 + 1/n) and the root mean square error of m, which are equal for calibrated samples. One half of the
    samples assigns a pixel to its group, the other half is evaluated there, and vice versa. Otherwise the selection by a
    small deviation would bias the deviation downwards.

    `least` is the smallest number of samples per image. Raises ValueError for levels outside (0, 1), fewer than two groups,
    and a `least` below 4.
    """

    def __init__(self, levels: tuple[float, ...] = (0.5, 0.95), groups: int = 10, least: int = 4) -> None:
        if not levels or not all(0.0 < level < 1.0 for level in levels):
            raise ValueError(f"metrics.calibration.levels must lie between 0 and 1, got {list(levels)}; set metrics.calibration.levels")
        for name, value, lowest in (("groups", groups, 2), ("least", least, 4)):
            if value < lowest:
                raise ValueError(f"metrics.calibration.{name} must be at least {lowest}, got {value}; set metrics.calibration.{name}")
        self.levels, self.groups, self.least = tuple(levels), groups, least

    def check(self, num_samples: int) -> None:
        if num_samples < self.least:
            raise ValueError(
                f"calibration of num_samples={num_samples} is not meaningful, at least {self.least} samples per image are needed; "
                "set num_samples=16, or metrics.calibration.least"
            )

    def __call__(self, root: Path, records: Sequence[dict]) -> dict:
        """The content of summary.json, from the images under `root`/images with a ground truth and without a failed sample."""
        counts = Counts(self.levels)
        for name, samples in complete(records).items():
            folder = root / "images" / name
            if (folder / "truth.png").is_file():
                drawn = np.stack([values(folder / f"restoration-{sample}.png") for sample in samples])
                counts.add(drawn, values(folder / "truth.png"))
        return counts.summary(self.groups) if counts.images else {"images": 0}


def complete(records: Sequence[dict]) -> dict[str, list[int]]:
    """{id: samples} of the images without a failed sample, so that all of them have equally many."""
    images = records_by_image(records)
    return {name: [one["sample"] for one in own] for name, own in images.items() if all(one["error"] is None for one in own)}


def values(path: Path) -> np.ndarray:
    """A PNG as (C · H · W) in [0, 1]."""
    return (read_as_is(path).double().flatten().numpy() + 1.0) / 2.0


@dataclass
class Counts:
    """Sums by bin of predicted deviation, and one coverage per image. No pixel values are kept."""

    levels: tuple[float, ...]
    samples: int = 0
    images: int = 0
    coverage: dict[float, list[float]] = field(default_factory=dict)
    ranks: list[np.ndarray] = field(default_factory=list)
    correlation: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pixels, self.squared, self.variance = np.zeros(BINS), np.zeros(BINS), np.zeros(BINS)
        self.covered = {level: np.zeros(BINS) for level in self.levels}

    def add(self, drawn: np.ndarray, truth: np.ndarray) -> None:
        """`drawn` (N, D) are the samples of `truth` (D,)."""
        self.samples, self.images = len(drawn), self.images + 1
        error, deviation = prediction(drawn, truth)
        for level in self.levels:
            self.coverage.setdefault(level, []).append(inside(error, deviation, level, self.samples).mean())
        self.ranks.append(rank_shares(drawn, truth))
        if deviation.std() > 0.0 and np.abs(error).std() > 0.0:
            self.correlation.append(np.corrcoef(deviation, np.abs(error))[0, 1])
        self._add_half(drawn[::2], drawn[1::2], truth)
        self._add_half(drawn[1::2], drawn[::2], truth)

    def _add_half(self, sorting: np.ndarray, evaluated: np.ndarray, truth: np.ndarray) -> None:
        bins = np.minimum((sorting.std(0, ddof=1) * BINS).astype(int), BINS - 1)
        error, deviation = prediction(evaluated, truth)
        self.pixels += np.bincount(bins, minlength=BINS)
        self.squared += np.bincount(bins, error**2, BINS)
        self.variance += np.bincount(bins, deviation**2, BINS)
        for level in self.levels:
            self.covered[level] += np.bincount(bins, inside(error, deviation, level, len(evaluated)), BINS)

    def summary(self, groups: int) -> dict:
        """Plain values for summary.json."""
        return {
            "images": self.images,
            "samples": self.samples,
            "coverage": {f"{level:g}": _plain(self.coverage[level]) for level in self.levels},
            "rank_coverage": self._rank_coverage(),
            "correlation": _plain(self.correlation),
            "groups": [found for found in map(self._group, self._grouped(groups)) if found],
        }

    def _rank_coverage(self) -> list[dict]:
        """The rank intervals, the widest one first."""
        count, shares = self.samples, np.stack(self.ranks)
        inner = [shares[:, k : count + 1 - k].sum(1) for k in range(1, count // 2 + 1)]
        return [{"nominal": (count + 1 - 2 * k) / (count + 1)} | _plain(list(share)) for k, share in enumerate(inner, 1)]

    def _grouped(self, groups: int) -> list[np.ndarray]:
        """The bins of each group. A bin belongs to the group of its middle pixel."""
        middle = (np.cumsum(self.pixels) - self.pixels / 2.0) / self.pixels.sum()
        return [(np.minimum((middle * groups).astype(int), groups - 1) == group) & (self.pixels > 0) for group in range(groups)]

    def _group(self, bins: np.ndarray) -> dict | None:
        count = self.pixels[bins].sum()
        if not count:
            return None
        return {
            "share": count / self.pixels.sum(),
            "predicted": sqrt(self.variance[bins].sum() / count),
            "error": sqrt(self.squared[bins].sum() / count),
            "coverage": {f"{level:g}": self.covered[level][bins].sum() / count for level in self.levels},
        }


def prediction(drawn: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """m − x and s √(1 + 1/N), the standard deviation that the samples predict for it, each (D,)."""
    return drawn.mean(0) - truth, drawn.std(0, ddof=1) * sqrt(1.0 + 1.0 / len(drawn))


def inside(error: np.ndarray, deviation: np.ndarray, level: float, samples: int) -> np.ndarray:
    """Which values of Student's interval contain the ground truth, (D,)."""
    from scipy.stats import t as student  # slow to import

    return np.abs(error) <= student.ppf((1.0 + level) / 2.0, samples - 1) * deviation + 1e-9


def rank_shares(drawn: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N + 1,) the share of values whose ground truth has rank 0 … N among its samples. Ties share their ranks evenly."""
    below, equal = (drawn < truth).sum(0), (drawn == truth).sum(0)
    shares = np.zeros(len(drawn) + 1)
    for ties in np.unique(equal):
        lowest = np.bincount(below[equal == ties], minlength=len(shares))
        for step in range(ties + 1):
            shares[step:] += lowest[: len(shares) - step] / (ties + 1)
    return shares / truth.size


def _plain(found: Sequence[float]) -> dict | None:
    known = estimate([float(value) for value in found])
    return None if known is None else known.to_dict()
