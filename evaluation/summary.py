"""summary.json: estimates over the images of a run, made from its records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from statistics import fmean
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, FiniteFloat
from typing_extensions import TypedDict

from diffusion_priors.evaluation.scores import BEST_OF_N, LEAST_RESIDUAL, MEASUREMENT, POSTERIOR_MEAN, SINGLE, metric_of
from diffusion_priors.evaluation.statistics import Estimate, estimate
from diffusion_priors.runs.reading.records import records_by_image

Level = Annotated[str, Field(pattern=r"^0\.\d+$")]


class EstimateEntry(TypedDict):
    """An `Estimate` in JSON."""

    mean: FiniteFloat
    se: FiniteFloat | None
    low: FiniteFloat | None
    high: FiniteFloat | None
    n: int


class Cost(TypedDict):
    """Network evaluations, vector-Jacobian products and seconds of one sample; the largest memory of any batch."""

    nfe_forward: FiniteFloat | None
    nfe_vjp: FiniteFloat | None
    seconds: EstimateEntry | None
    peak_memory_mib: FiniteFloat | None


class Covered(EstimateEntry):
    """The coverage of the intervals between two order statistics, whose nominal coverage is `nominal`."""

    nominal: FiniteFloat


class Group(TypedDict):
    """Pixels of similar predicted deviation: their share of all, predicted deviation, error, and coverage by level."""

    share: FiniteFloat
    predicted: FiniteFloat
    error: FiniteFloat
    coverage: dict[str, FiniteFloat]


class Calibration(TypedDict):
    """What metrics=calibration found, for `images` of `samples` each."""

    images: int
    samples: int
    coverage: dict[Level, EstimateEntry]
    rank_coverage: Annotated[list[Covered], Field(min_length=1)]
    correlation: EstimateEntry | None
    groups: Annotated[list[Group], Field(min_length=1)]


class NoCalibration(TypedDict):
    """No image has a ground truth and all its samples."""

    images: Literal[0]


class Summary(TypedDict):
    """The schema of summary.json. `statistics` is by the key of a `Statistic`, then by metric.

    `first_failure` is "id: error". `measurements` is a hash: equal for runs that restored the same y. `footnote` says
    why a metric has no value. `distribution` and `calibration` are there if these metrics were configured. `logged`
    holds the settings of the dashboards that have these values.
    """

    complete: bool
    images: int
    records: int
    failed: int
    first_failure: NotRequired[str | None]
    title: str
    num_samples: int
    metrics: list[str]
    statistics: dict[str, dict[str, EstimateEntry | None] | None]
    cost: Cost
    sigma_y: FiniteFloat | None
    measurements: str | None
    footnote: NotRequired[str | None]
    distribution: NotRequired[dict[str, FiniteFloat | None] | None]
    calibration: NotRequired[Calibration | NoCalibration | None]
    logged: NotRequired[list[dict[str, Any]]]


def summarise(
    title: str,
    records: Sequence[dict],
    posterior: Sequence[dict],
    metrics: Sequence[str],
    num_samples: int,
    complete: bool = True,
) -> Summary:
    """The summary of the records. The units are images: the samples of an image are averaged first."""
    images = records_by_image(records)
    groups = list(images.values())
    failed = [record for record in records if record["error"] is not None]
    hashes = sorted(f"{name} {own[0]['measurement_hash']}" for name, own in images.items() if own[0]["measurement_hash"])
    statistics = {
        MEASUREMENT.key: {name: over(groups, lambda own, name=name: own[0][f"{name}_measurement"]) for name in metrics},
        SINGLE.key: {name: over(groups, lambda own, name=name: mean(own, name)) for name in (*metrics, "residual")},
    }
    if num_samples > 1:
        statistics[POSTERIOR_MEAN.key] = {name: entry(estimate([one[name] for one in posterior])) for name in metrics}
        statistics[LEAST_RESIDUAL.key] = {name: over(groups, lambda own, name=name: of_least_residual(own, name)) for name in metrics}
        statistics[BEST_OF_N.key] = {name: over(groups, lambda own, name=name: best(own, name)) for name in metrics}
    return {
        "title": title,
        "complete": complete,
        "images": len(groups),
        "records": len(records),
        "failed": len(failed),
        "first_failure": failed[0]["id"] + ": " + failed[0]["error"] if failed else None,
        "num_samples": num_samples,
        "metrics": list(metrics),
        "statistics": statistics,
        "cost": {
            "nfe_forward": mean(records, "nfe_forward"),
            "nfe_vjp": mean(records, "nfe_vjp"),
            "seconds": over(groups, lambda own: mean(own, "seconds")),
            "peak_memory_mib": max((r["peak_memory_mib"] for r in records if r["peak_memory_mib"] is not None), default=None),
        },
        "sigma_y": mean(records, "sigma_y"),
        "measurements": blake2b("\n".join(hashes).encode(), digest_size=8).hexdigest() if hashes else None,
    }


def over(groups: Sequence[list[dict]], value: Callable[[list[dict]], float | None]) -> EstimateEntry | None:
    """The estimate over images of a value computed from the records of each image."""
    return entry(estimate([value(own) for own in groups]))


def entry(found: Estimate | None) -> EstimateEntry | None:
    return None if found is None else found.to_dict()


def mean(records: Sequence[dict], name: str) -> float | None:
    values = [record[name] for record in records if record[name] is not None]
    return fmean(values) if values else None


def best(records: Sequence[dict], name: str) -> float | None:
    """The best score among the samples of an image."""
    values = [record[name] for record in records if record[name] is not None]
    return max(values, key=lambda value: metric_of(name).gain * value, default=None)


def of_least_residual(records: Sequence[dict], name: str) -> float | None:
    """The score of the sample with the least ‖y − A(x0)‖: an image and its ambiguities have samples of very different residuals."""
    measured = [record for record in records if record["residual"] is not None]
    return min(measured, key=lambda record: record["residual"])[name] if measured else None
