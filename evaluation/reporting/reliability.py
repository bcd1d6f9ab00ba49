"""Calibration of a run's samples as charts: coverage against nominal coverage, error against predicted deviation."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffusion_priors.evaluation.reporting.charts import FIRST, INK, STYLE, add_legend, inline_svg, png, small_chart
from diffusion_priors.evaluation.reporting.format import number
from diffusion_priors.runs.files import write_whole
from diffusion_priors.runs.layout import RunLayout


def write_reliability(root: Path, calibration: dict) -> None:
    """Write both charts to `root`/reliability.png; nothing if no image was counted."""
    if not calibration["images"]:
        return
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 4.0), layout="constrained")
        for axes, draw in zip(figure.subplots(1, 2), (draw_coverage, draw_error), strict=True):
            draw(axes, calibration)
            axes.legend(loc="upper left")
    write_whole(RunLayout(root).reliability, lambda stream: stream.write(png(figure)))


def inline(calibration: dict) -> list[Markup]:
    """Both charts for a page."""
    covered = "; ".join(
        f"{number(one['nominal'], '.0%')} intervals cover {number(one['mean'], '.0%')}" for one in calibration["rank_coverage"]
    )
    described = {draw_coverage: f"Coverage of rank intervals. {covered}.", draw_error: "Error against predicted deviation."}
    charts = []
    for draw, description in described.items():
        with matplotlib.rc_context(STYLE):
            figure, axes = small_chart("", "")
            draw(axes, calibration)
            add_legend(figure)
        charts.append(inline_svg(figure, description))
    return charts


def draw_coverage(axes: Axes, calibration: dict) -> None:
    """The coverage of the rank intervals, with the 95 % interval over images."""
    intervals = calibration["rank_coverage"]
    nominal, mean = [one["nominal"] for one in intervals], [one["mean"] for one in intervals]
    errors = None if intervals[0]["low"] is None else [one["high"] - one["mean"] for one in intervals]
    axes.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1.2, label="calibrated")
    axes.errorbar(nominal, mean, errors, color=FIRST, marker="o", markersize=4, linewidth=1.2, label="rank intervals")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="nominal coverage", ylabel="share of pixels inside")


def draw_error(axes: Axes, calibration: dict) -> None:
    """A point per group of pixels: the error against the predicted standard deviation."""
    predicted, error = ([group[key] for group in calibration["groups"]] for key in ("predicted", "error"))
    end = 1.05 * max(*predicted, *error, 1e-3)
    axes.plot([0, end], [0, end], color=INK, linestyle="--", linewidth=1.2, label="calibrated")
    axes.plot(predicted, error, color=FIRST, marker="o", markersize=4, linewidth=1.2, label="pixels grouped by deviation")
    axes.set(xlim=(0, end), ylim=(0, end), xlabel="predicted standard deviation, on [0, 1]", ylabel="root mean square error")
