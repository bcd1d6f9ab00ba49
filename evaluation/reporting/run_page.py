"""report.html: one run to look at, in a file of its own: means, images side by side, every image's scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from markupsafe import Markup

from diffusion_priors.evaluation.reporting import reliability as calibration_plots
from diffusion_priors.evaluation.reporting.charts import histogram, scatter
from diffusion_priors.evaluation.reporting.format import form, heading
from diffusion_priors.evaluation.reporting.html import render
from diffusion_priors.evaluation.reporting.run_images import Image, load_shots, read_images, tag_extremes, telling
from diffusion_priors.runs.layout import WHITE

ROWS, FAILURES = 2000, 200
"""Most rows of the table and most failures listed, so that the page opens."""

ESTIMATES = {
    "measurement": ("Measurement", "what was given, scored as it is"),
    "single": ("Single sample", "one restoration as it comes; where there are several of an image, their average"),
    "posterior_mean": ("Posterior mean", "the pixel-wise mean of an image's samples, scored as one restoration"),
    "best_of_n": ("Best of N", "the best of an image's samples, chosen with the truth at hand, by each metric for itself"),
}
"""The rows of statistics in summary.json: what they are called, and what they are."""
REPORT = "report.html"


@dataclass(frozen=True)
class Column:
    """A column of the table of images; `value` takes it off an image."""

    heading: str
    of: str
    spec: str
    value: Callable[[Image], float | None]


def write_report(root: Path, images: int = 60, records: Sequence[dict] | None = None, summary: dict | None = None) -> Path:
    """Write `root`/report.html from what a run left there, with at most `images` images in it.

    `records` and `summary` spare reading them again. Raises FileNotFoundError where there is no config.yaml or summary.json yet.
    """
    settings = yaml.safe_load((root / "config.yaml").read_text(encoding="utf-8"))
    summary = summary or json.loads((root / "summary.json").read_text(encoding="utf-8"))
    everything = read_images(root, records)
    tag_extremes(everything)
    rows = sorted(telling(everything, max(ROWS, images)), key=lambda image: image.number)
    shown = load_shots(root, telling(everything, images), summary["metrics"], images)
    failures = [record for image in everything for record in image.failed]
    values = {
        "summary": summary,
        "estimates": [(*ESTIMATES[name], found) for name, found in summary["statistics"].items() if name in ESTIMATES and any_value(found)],
        "scored": scored(summary),
        "count": len(everything),
        "shown": shown,
        "kinds": {shot.kind: shot.name for image in shown for shot in image.shots},
        "white": WHITE,
        "rows": rows,
        "columns": columns(rows, summary["metrics"]),
        "plots": plots(everything, rows, summary),
        "failures": failures,
        "listed": failures[:FAILURES],
        "settings": settings,
        "config": yaml.safe_dump(settings["config"], sort_keys=False, allow_unicode=True, width=100),
    }
    return render("report.html.j2", root / REPORT, values)


def any_value(found: dict) -> bool:
    return any(value is not None for value in found.values())


def scored(summary: dict) -> list[str]:
    """The metrics that any row of the summary has a value for."""
    rows = summary["statistics"].values()
    return [name for name in (*summary["metrics"], "residual") if any(row.get(name) is not None for row in rows)]


def columns(images: Sequence[Image], metrics: Sequence[str]) -> list[Column]:
    """A metric's columns side by side, then residual, deviation and seconds; those in which some image has a value."""
    one = "mean of samples" if any(len(image.records) > 1 for image in images) else "restoration"
    found = []
    for name in metrics:
        found += [
            Column(heading(name), "measurement", form(name), recorded(f"{name}_measurement")),
            Column(heading(name), one, form(name), recorded(name)),
            Column(heading(name), "posterior mean", form(name), of_posterior(name)),
        ]
    found += [
        Column("Residual", one, ".4f", recorded("residual")),
        Column("Deviation", "of samples", ".4f", of_posterior("deviation")),
        Column("Seconds", "a sample", ".2f", recorded("seconds")),
    ]
    return [column for column in found if any(column.value(image) is not None for image in images)]


def recorded(key: str) -> Callable[[Image], float | None]:
    return lambda image: image.mean(key)


def of_posterior(key: str) -> Callable[[Image], float | None]:
    return lambda image: image.posterior.get(key)


def plots(everything: Sequence[Image], rows: Sequence[Image], summary: dict) -> list[Markup]:
    """A histogram of each metric that two or more images have, over all of them; the scatter of PSNR is of `rows` alone."""
    drawn = []
    for name in (*summary["metrics"], "residual"):
        series = {"restoration": values(everything, name), "measurement": values(everything, f"{name}_measurement")}
        mark = ("σ_y", summary["sigma_y"]) if name == "residual" and summary["sigma_y"] is not None else None
        if len(series["restoration"]) > 1:
            drawn.append(histogram({label: found for label, found in series.items() if found}, title(name), mark))
    if (summary.get("calibration") or {}).get("images"):
        drawn += calibration_plots.inline(summary["calibration"])
    pairs = [(image.mean("psnr_measurement"), image.mean("psnr")) for image in rows]
    both = [(x, y) for x, y in pairs if x is not None and y is not None]
    if len(both) > 1:
        drawn.append(scatter(*zip(*both, strict=True), "PSNR of the measurement (dB)", "PSNR of the restoration (dB)"))
    return drawn


def values(images: Sequence[Image], key: str) -> list[float]:
    return [value for image in images if (value := image.mean(key)) is not None]


def title(name: str) -> str:
    return "residual, in [-1, 1] units" if name == "residual" else heading(name)
