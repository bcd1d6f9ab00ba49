"""The ratio of two timings that alternate in one process: its median, and a bootstrap interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.timing.machine import seconds

DRAWS = 2000
LEVEL = 0.95


class Ratio(NamedTuple):
    """The median over repetitions, and its interval; `low` and `high` are None below three repetitions."""

    median: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        interval = "" if self.low is None else f" [{self.low:.2f}, {self.high:.2f}]"
        return f"{self.median:.2f}{interval}"


def ratio(first: Sequence[float], second: Sequence[float]) -> Ratio:
    """median_i first_i / second_i, with the percentile interval of the bootstrap over i (Efron 1979)."""
    ratios = np.asarray(first) / np.asarray(second)
    if len(ratios) < 3:
        return Ratio(float(np.median(ratios)), None, None)
    drawn = np.random.default_rng(0).choice(ratios, (DRAWS, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Ratio(float(np.median(ratios)), float(low), float(high))


def alternate(runs: Sequence[Callable[[], object]], repetitions: int, device: torch.device, warm: bool = False) -> list[list[float]]:
    """Seconds of each run, repetition by repetition, every other one backwards; first one of each untimed, unless they are `warm`."""
    for run in () if warm else runs:
        run()
    found: list[list[float]] = [[] for _ in runs]
    for repetition in range(repetitions):
        order = range(len(runs)) if repetition % 2 == 0 else reversed(range(len(runs)))
        for number in order:
            found[number].append(seconds(runs[number], device))
    return found
