"""What a sample of images says about all images: means with confidence intervals, and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """Mean of `n` values, its standard error s/√n, and the `LEVEL` interval mean ± t_{n−1} s/√n (Student 1908).

    With fewer than two values `se`, `low` and `high` are None.
    """

    mean: float
    se: float | None
    low: float | None
    high: float | None
    n: int

    @classmethod
    def from_dict(cls, values: Mapping[str, float | int | None] | None) -> Estimate | None:
        """The estimate that `to_dict` wrote; None for None."""
        return None if values is None else cls(**values)

    def to_dict(self) -> dict[str, float | int | None]:
        return asdict(self)


def estimate(values: Sequence[float | None]) -> Estimate | None:
    """The estimate from the finite values; None and non-finite values are ignored. None if no value is left."""
    from scipy import stats  # slow to import

    kept = np.array([value for value in values if _exists(value)], dtype=np.float64)
    n = len(kept)
    if n == 0:
        return None
    mean = float(kept.mean())
    if n == 1:
        return Estimate(mean, None, None, None, 1)
    se = float(kept.std(ddof=1) / np.sqrt(n))
    half = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * se
    return Estimate(mean, se, mean - half, mean + half, n)


@dataclass(frozen=True)
class Difference:
    """Mean of the paired differences first − second, their interval, and the p-values of two paired tests.

    `t_test` is Student's two-sided test for the mean. It is below 1 − `LEVEL` exactly if the interval excludes 0.
    `wilcoxon` is the signed-rank test (Wilcoxon 1945), which assumes symmetry only. Both are None with fewer than two
    pairs and if no pair differs. `t_test` is also None if all pairs differ by the same amount, because the spread is 0.
    """

    estimate: Estimate
    t_test: float | None
    wilcoxon: float | None

    def to_dict(self) -> dict[str, float | int | None]:
        return self.estimate.to_dict() | {"t_test": self.t_test, "wilcoxon": self.wilcoxon}


def paired(first: Sequence[float | None], second: Sequence[float | None]) -> Difference | None:
    """The paired difference of two runs. Element i of both sequences belongs to the same image.

    Pairs without two finite values are ignored. None if no pair is left. Raises ValueError if the lengths differ.
    """
    from scipy import stats

    both = [(a, b) for a, b in zip(first, second, strict=True) if _exists(a) and _exists(b)]
    differences = np.array([a - b for a, b in both], dtype=np.float64)
    found = estimate(differences.tolist())
    if found is None:
        return None
    if found.n < 2 or not np.any(differences):
        return Difference(found, None, None)
    return Difference(found, _student(found, np.abs(both).max()), float(stats.wilcoxon(differences).pvalue))


def _exists(value: float | None) -> bool:
    return value is not None and bool(np.isfinite(value))


def _student(found: Estimate, largest: float) -> float | None:
    """Two-sided p = 2 P(t_{n−1} > |mean| / se). None if the spread is only the rounding of values up to `largest`."""
    from scipy import stats

    if found.se <= 10 * np.finfo(np.float64).eps * largest:
        return None
    return 2 * float(stats.t.sf(abs(found.mean) / found.se, found.n - 1))
