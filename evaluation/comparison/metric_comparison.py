"""One metric of two runs: means, paired difference, and what it says in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10

import numpy as np

from diffusion_priors.evaluation.reporting.format import ABSENT, number, p_number, p_value
from diffusion_priors.evaluation.scores import Metric, Statistic
from diffusion_priors.evaluation.statistics import LEVEL, Difference, Estimate, estimate, paired

INTERVAL = f"{100 * LEVEL:.0f} % interval"


@dataclass(frozen=True)
class MetricComparison:
    """One metric over the images of which both runs have a value: means, difference first − second, images won, lost, tied.

    `statistic` is SINGLE (the mean over the samples of an image) or POSTERIOR_MEAN. `higher` and `lower` count the
    images for which the value of the first run is higher and lower.
    """

    statistic: Statistic
    metric: Metric
    first: Estimate
    second: Estimate
    difference: Difference
    higher: int
    lower: int
    tied: int

    @property
    def name(self) -> str:
        return self.statistic.prefix + self.metric.heading

    @property
    def won_lost(self) -> tuple[int, int] | tuple[None, None]:
        """The images for which the first run is better, and worse; None if no direction of the metric is better."""
        if self.metric.higher_is_better is None:
            return None, None
        return (self.higher, self.lower) if self.metric.higher_is_better else (self.lower, self.higher)

    def to_dict(self) -> dict:
        won, lost = self.won_lost
        means = {"first": self.first.to_dict(), "second": self.second.to_dict(), "difference": self.difference.to_dict()}
        return means | {"higher": self.higher, "lower": self.lower, "tied": self.tied, "won": won, "lost": lost, "words": self.verdict()}

    def verdict(self) -> str:
        """The difference in a sentence."""
        found, p, spec = self.difference.estimate, self.difference.t_test, self._spec()
        if self.tied == found.n:
            return "the same on every image"
        unit = f" {self.metric.unit}".rstrip()
        ahead = "first" if (found.mean > 0) == (self.metric.higher_is_better is not False) else "second"
        better = "higher" if self.metric.higher_is_better is None else "better"
        lead = f"{ahead} is {better} by {number(abs(found.mean), spec)}{unit}"
        if found.n == 1:
            return f"{lead} on the only image, which says nothing about others"
        if p is None:
            return f"{lead}, by the same amount on every image"
        if found.low <= 0 <= found.high:
            ends = f"{number(found.low, spec)} to {number(found.high, spec)}"
            return f"no difference larger than chance ({number(found.mean, spec)}{unit}, {INTERVAL} {ends}, {p_value(p)})"
        low, high = sorted((abs(found.low), abs(found.high)))
        return f"{lead} ({INTERVAL} {number(low, spec)} to {number(high, spec)}, {p_value(p)})"

    def cells(self) -> list[str]:
        """The row of the table, as in HEADINGS."""
        found, spec = self.difference.estimate, self._spec()
        means = [number(value, spec) for value in (self.first.mean, self.second.mean, found.mean)]
        interval = ABSENT if found.low is None else f"{number(found.low, spec)} to {number(found.high, spec)}"
        counts = [ABSENT if count is None else str(count) for count in (*self.won_lost, self.tied, found.n)]
        return [self.name, *means, interval, p_number(self.difference.t_test), p_number(self.difference.wilcoxon), *counts]

    def _spec(self) -> str:
        """The format of the metric, with more decimals if half the width of the interval needs them to show two digits."""
        found = self.difference.estimate
        usual = int(self.metric.spec[1])
        scale = abs(found.mean) if self.difference.t_test is None else found.high - found.mean
        places = min(8, max(usual, 1 - floor(log10(scale)))) if scale else usual
        return f".{places}f"


HEADINGS = ("", "first", "second", "first − second", INTERVAL, "p (t-test)", "p (Wilcoxon)", "won", "lost", "tied", "images")


def compare_metric(statistic: Statistic, metric: Metric, pairs: Sequence[tuple[float | None, float | None]]) -> MetricComparison | None:
    """The comparison from the (first, second) values of each image. Images without two finite values are ignored; None if none is left."""
    known = [pair for pair in pairs if None not in pair and np.isfinite(pair).all()]
    if not known:
        return None
    first, second = zip(*known, strict=True)
    signs = np.sign(np.subtract(first, second)).tolist()
    higher, lower, tied = (signs.count(sign) for sign in (1, -1, 0))
    return MetricComparison(statistic, metric, estimate(first), estimate(second), paired(first, second), higher, lower, tied)
