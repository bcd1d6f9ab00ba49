"""report.html: one run as a page of its own: means, images to compare, the scores of every image, the configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from markupsafe import Markup

from diffusion_priors.evaluation.reporting import reliability
from diffusion_priors.evaluation.reporting.charts import histogram, scatter
from diffusion_priors.evaluation.reporting.finished_run import read_summary
from diffusion_priors.evaluation.reporting.format import heading, number, plus_minus, spec_of
from diffusion_priors.evaluation.reporting.html import render
from diffusion_priors.evaluation.reporting.image_records import ImageRecords, read_images
from diffusion_priors.evaluation.reporting.run_images import cards_of, load_shots, representative
from diffusion_priors.evaluation.scores import STATISTICS
from diffusion_priors.evaluation.statistics import Estimate
from diffusion_priors.evaluation.summary import Summary
from diffusion_priors.runs.config import read_config
from diffusion_priors.runs.layout import WHITE, RunLayout

ROWS, FAILURES = 2000, 200
"""The most rows of the table and the most failures listed, so that the page opens."""


@dataclass(frozen=True)
class Column:
    """A column of the table of images; `value` reads it from the records of an image."""

    heading: str
    of: str
    spec: str
    value: Callable[[ImageRecords], float | None]


def write_report(root: Path, images: int = 60, records: Sequence[dict] | None = None, summary: Summary | None = None) -> Path:
    """Write `root`/report.html with at most `images` images.

    `records` and `summary` are used instead of those in the folder. Raises FileNotFoundError without config.yaml or
    summary.json, and ValueError where they are damaged.
    """
    layout = RunLayout(root)
    settings = read_config(layout.config)
    summary = summary or read_summary(layout.summary)
    cards = cards_of(read_images(root, records))
    rows = sorted(representative(cards, max(ROWS, images)), key=lambda card: card.number)
    shown = load_shots(root, representative(cards, images), summary["metrics"], images)
    failures = [record for card in cards for record in card.failed]
    values = {
        "summary": summary,
        "estimates": estimates(summary),
        "scored": scored_metrics(summary),
        "seconds": Estimate.from_dict(summary["cost"]["seconds"]),
        "calibration": calibration_facts(summary.get("calibration")),
        "count": len(cards),
        "shown": shown,
        "kinds": {shot.kind: shot.name for card in shown for shot in card.shots},
        "white": WHITE,
        "rows": rows,
        "columns": columns([card.results for card in rows], summary["metrics"]),
        "plots": charts([card.results for card in cards], [card.results for card in rows], summary),
        "failures": failures,
        "listed": failures[:FAILURES],
        "made_by": made_by(settings),
        "config": yaml.safe_dump(settings["config"], sort_keys=False, allow_unicode=True, width=100),
    }
    return render("report.html.j2", layout.report, values)


def made_by(settings: dict) -> dict[str, object]:
    """The command and the versions that config.yaml names, as texts; what is not there, or is no mapping, is left out."""

    def mapping(value: object) -> dict:
        return value if isinstance(value, dict) else {}

    source = mapping(settings.get("source"))
    git = mapping(source.get("git"))
    commit = f"{git.get('commit')}{', with changes that are not committed' if git.get('dirty') else ''}" if git else None
    versions = {"Python": source.get("python"), "git": commit} | mapping(source.get("packages"))
    return {"command": settings.get("command"), "versions": {name: version for name, version in versions.items() if version is not None}}


def estimates(summary: Summary) -> list[tuple[str, str, dict[str, Estimate | None]]]:
    """(label, explanation, metric → estimate) of the statistics that have a value."""
    rows = []
    for statistic in STATISTICS:
        found = summary["statistics"].get(statistic.key) or {}
        if any(value is not None for value in found.values()):
            label = statistic.named(summary["num_samples"])
            values = {name: Estimate.from_dict(value) for name, value in found.items()}
            rows.append((label[0].upper() + label[1:], statistic.explanation, values))
    return rows


def scored_metrics(summary: Summary) -> list[str]:
    """The metrics that have a value in any statistic."""
    rows = [row for row in summary["statistics"].values() if row]
    return [name for name in (*summary["metrics"], "residual") if any(row.get(name) is not None for row in rows)]


def calibration_facts(found: dict | None) -> list[tuple[str, str]]:
    """(value, what it is): the coverage of the samples' intervals and the correlation of deviation and error."""
    if not found or not found["images"]:
        return []
    facts = []
    for level, one in found["coverage"].items():
        percent = Estimate(*(value and 100 * value for value in (one["mean"], one["se"], one["low"], one["high"])), one["n"])
        nominal = number(100 * float(level), ".0f")
        facts.append((f"{plus_minus(percent, '.1f')} %", f"of the truth's pixels lie inside the {nominal} % intervals of the samples"))
    if found["correlation"]:
        facts.append((number(found["correlation"]["mean"]), "correlation of predicted deviation and error"))
    return facts


def columns(images: Sequence[ImageRecords], metrics: Sequence[str]) -> list[Column]:
    """The columns of each metric side by side, then residual, deviation, seconds and the values of the solver, without empty ones."""
    one = "mean of samples" if any(len(image.records) > 1 for image in images) else "restoration"
    found = []
    for name in metrics:
        found += [
            Column(heading(name), "measurement", spec_of(name), recorded(f"{name}_measurement")),
            Column(heading(name), one, spec_of(name), recorded(name)),
            Column(heading(name), "posterior mean", spec_of(name), of_posterior(name)),
        ]
    found += [
        Column("Residual", one, spec_of("residual"), recorded("residual")),
        Column("Deviation", "of samples", spec_of("deviation"), of_posterior("deviation")),
        Column("Seconds", "per sample", spec_of("seconds"), recorded("seconds")),
    ]
    reported = dict.fromkeys(key for image in images for record in image.records for key in record.get("info") or {})
    found += [Column(key, "of the solver", ".4g", reported_by_solver(key)) for key in reported]
    return [column for column in found if any(column.value(image) is not None for image in images)]


def recorded(key: str) -> Callable[[ImageRecords], float | None]:
    return lambda image: image.mean(key)


def reported_by_solver(key: str) -> Callable[[ImageRecords], float | None]:
    return lambda image: image.mean_info(key)


def of_posterior(key: str) -> Callable[[ImageRecords], float | None]:
    return lambda image: image.posterior.get(key)


def charts(images: Sequence[ImageRecords], rows: Sequence[ImageRecords], summary: Summary) -> list[Markup]:
    """A histogram of each metric over all images, the calibration, and the PSNR of `rows` before and after restoration."""
    drawn = []
    for name in (*summary["metrics"], "residual"):
        series = {"restoration": values(images, name), "measurement": values(images, f"{name}_measurement")}
        mark = ("σ_y", summary["sigma_y"]) if name == "residual" and summary["sigma_y"] is not None else None
        if len(series["restoration"]) > 1:
            title = "residual, in the units of y" if name == "residual" else heading(name)
            drawn.append(histogram({label: found for label, found in series.items() if found}, title, mark))
    if (summary.get("calibration") or {}).get("images"):
        drawn += reliability.inline(summary["calibration"])
    pairs = [(image.mean("psnr_measurement"), image.mean("psnr")) for image in rows]
    both = [(x, y) for x, y in pairs if x is not None and y is not None]
    if len(both) > 1:
        drawn.append(scatter(*zip(*both, strict=True), "PSNR of the measurement (dB)", "PSNR of the restoration (dB)"))
    return drawn


def values(images: Sequence[ImageRecords], key: str) -> list[float]:
    return [value for image in images if (value := image.mean(key)) is not None]
