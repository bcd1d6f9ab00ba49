"""Simulation-based calibration: the rank of the ground truth among a solver's samples."""

from __future__ import annotations

import numpy as np
from numpy import ndarray

TIE = 1e-4
"""Two values of a quantity are the same if they differ by less than this part of its standard deviation."""


def ranks(truth: ndarray, samples: ndarray, generator: np.random.Generator) -> ndarray:
    """How many of L samples (M, L, Q) lie below the ground truth (M, Q), for each of Q quantities: (M, Q) ranks from 0 to L.

    They are uniform if the truths are drawn from the prior and the samples from the posterior (Talts et al. 2018, Thm. 1;
    Cook et al. 2006). Samples that are the truth itself, as happens where the prior is a list of images, lie below it by
    chance: any number of them with the same probability (Modrák et al. 2023).
    """
    apart, near = samples - truth[:, None], TIE * truth.std(0)
    same = (np.abs(apart) <= near).sum(1)
    return (apart < -near).sum(1) + generator.integers(same + 1)


def uniformity(found: ndarray, samples: int, bins: int = 10) -> float:
    """p-value of χ² tests (Pearson 1900) that ranks (M, Q) from 0 to `samples` are uniform, the least of the Q times Q (Bonferroni).

    Talts et al. 2018, Sec. 4.1, inspect histograms; this condenses them into one number. The `bins` have equal width,
    so they must divide the samples + 1 ranks. Raises ValueError if they do not.
    """
    if (samples + 1) % bins:
        raise ValueError(f"{samples} samples give {samples + 1} ranks, not a multiple of {bins} bins; set exact_problem.ranks to 19, 29, …")
    from scipy import stats  # slow to import

    counts = histogram(found, samples, bins)
    return float(min(1.0, found.shape[1] * stats.chisquare(counts, axis=0).pvalue.min()))


def histogram(found: ndarray, samples: int, bins: int) -> ndarray:
    """How many ranks fall into each bin, (bins, Q)."""
    width = (samples + 1) // bins
    return np.stack([((found // width) == b).sum(0) for b in range(bins)])


def quantities(x: ndarray, squared_residual: ndarray, axes: ndarray) -> ndarray:
    """The ranked quantities (…, Q) of images x (…, D): coordinates along `axes` (D, k), and ‖y − A(x)‖², given as (…).

    A solver that ignores y passes every test of x alone; the squared residual depends on both (Modrák et al. 2023, Sec. 4).
    """
    return np.concatenate([x @ axes, squared_residual[..., None]], axis=-1)
