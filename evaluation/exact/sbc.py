"""Simulation-based calibration: where the truth ranks among a solver's samples."""

from __future__ import annotations

import numpy as np
from numpy import ndarray
from scipy import stats


def ranks(truth: ndarray, samples: ndarray) -> ndarray:
    """How many of L samples (M, L, Q) lie below the truth (M, Q), of Q quantities: (M, Q) numbers from 0 to L.

    Samples of the posterior of truths drawn from the prior make them uniform (Talts et al. 2018, Thm. 1; Cook et al. 2006).
    """
    return (samples < truth[:, None]).sum(1)


def uniformity(found: ndarray, samples: int, bins: int = 10) -> float:
    """p-value of χ² tests (Pearson 1900) that ranks (M, Q) from 0 to `samples` are uniform, the least of the Q times Q (Bonferroni).

    Talts et al. 2018 look at histograms, Sec. 4.1; this is one number for them. `bins` of equal width, so they must divide
    the samples + 1 ranks. Raises ValueError where they do not.
    """
    if (samples + 1) % bins:
        raise ValueError(f"{samples} samples give {samples + 1} ranks, no multiple of {bins} bins; set problem.ranks to 19, 29, …")
    counts = histogram(found, samples, bins)
    return float(min(1.0, found.shape[1] * stats.chisquare(counts, axis=0).pvalue.min()))


def histogram(found: ndarray, samples: int, bins: int) -> ndarray:
    """How many ranks fall into each bin, (bins, Q)."""
    width = (samples + 1) // bins
    return np.stack([((found // width) == b).sum(0) for b in range(bins)])


def quantities(x: ndarray, y: ndarray, matrix: ndarray, axes: ndarray) -> ndarray:
    """What is ranked, (…, Q), of images x (…, D) measured as y (…, M): coordinates along `axes` (D, k), and ‖y − A x‖².

    A solver that ignores y passes any test of x alone; the misfit depends on both (Modrák et al. 2023, Sec. 4).
    """
    misfit = ((y - x @ matrix.T) ** 2).sum(-1, keepdims=True)
    return np.concatenate([x @ axes, misfit], axis=-1)
