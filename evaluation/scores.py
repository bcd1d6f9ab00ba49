"""The rows and the columns of every table of results: which statistics there are, and which metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Statistic:
    """One statistic of summary.json, under its `key` there. `label_of_several` holds if an image has n > 1 samples."""

    key: str
    label: str
    explanation: str
    label_of_several: str = ""

    def named(self, samples: int) -> str:
        """The label in the results of one run with that many samples per image."""
        return self.label_of_several.format(n=samples) if samples > 1 and self.label_of_several else self.label

    @property
    def prefix(self) -> str:
        """What precedes the heading of a metric if a table shows several statistics. Single samples are the default and have none."""
        return "" if self is SINGLE else f"{self.label}: "


MEASUREMENT = Statistic("measurement", "measurement", "the degraded input, scored without restoration")
SINGLE = Statistic(
    "single",
    "restoration",
    "one sample; for an image with several samples, the mean of their scores",
    "single sample of {n}",
)
POSTERIOR_MEAN = Statistic(
    "posterior_mean",
    "posterior mean",
    "the pixel-wise mean of an image's samples, scored as one restoration",
    "posterior mean of {n} samples",
)
BEST_OF_N = Statistic(
    "best_of_n",
    "best of N",
    "the best sample of each image, chosen for each metric with the ground truth: an optimistic bound",
    "best of {n} samples, each metric on its own",
)
LEAST_RESIDUAL = Statistic(
    "least_residual",
    "least residual",
    "the sample of each image that explains its measurement best, chosen without the ground truth",
    "least residual of {n} samples",
)
STATISTICS = (MEASUREMENT, SINGLE, POSTERIOR_MEAN, LEAST_RESIDUAL, BEST_OF_N)


@dataclass(frozen=True)
class Metric:
    """A column: how it is headed, how its values are formatted, and which direction is better.

    `higher_is_better` is None if neither direction is better, or if it is not known.
    """

    name: str
    label: str
    spec: str = ".3f"
    higher_is_better: bool | None = None
    unit: str = ""

    @property
    def heading(self) -> str:
        """PSNR (dB) ↑; the arrow points to the better values."""
        unit = f" ({self.unit})" if self.unit else ""
        return self.label + unit + {True: " ↑", False: " ↓", None: ""}[self.higher_is_better]

    @property
    def gain(self) -> int:
        """1, or −1 if lower is better: the best value has the largest gain · value. An unknown direction counts as "higher is better"."""
        return -1 if self.higher_is_better is False else 1


METRICS = {
    metric.name: metric
    for metric in (
        Metric("psnr", "PSNR", ".2f", higher_is_better=True, unit="dB"),
        Metric("ssim", "SSIM", higher_is_better=True),
        Metric("lpips", "LPIPS", higher_is_better=False),
        Metric("lpips_vgg", "LPIPS vgg", higher_is_better=False),
        Metric("lpips_squeeze", "LPIPS squeeze", higher_is_better=False),
        Metric("residual", "residual", ".4f"),  # best near sigma_y, not near 0
        Metric("deviation", "deviation", ".4f"),
        Metric("seconds", "time per image", ".2f", higher_is_better=False, unit="s"),
    )
}
"""The metrics with a known direction. A metric that is not listed has the defaults of `Metric` and its own name as label."""


def metric_of(name: str) -> Metric:
    return METRICS.get(name) or Metric(name, name)


def reason(names: Sequence[str], why: str) -> str:
    """The part of a footnote that says why metrics have no value: "SSIM, LPIPS: why"."""
    return f"{', '.join(metric_of(name).label for name in names)}: {why}"


def explains(footnote: str | None, name: str) -> bool:
    """Whether a footnote, reasons with "; " between them, says why the metric `name` has no value."""
    return any(metric_of(name).label in part.partition(":")[0].split(", ") for part in (footnote or "").split("; "))
