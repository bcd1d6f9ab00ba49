"""Reliability of a run's samples, drawn: coverage against its nominal value, error against the predicted one."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from diffusion_priors.evaluation.reporting.charts import FIRST, INK, SETTINGS, axes_of, inline_svg
from diffusion_priors.runs.files import write_whole

RELIABILITY = "reliability.png"
SOLID = {INK: "#333333", FIRST: "#2f7fc1"}


def write_reliability(root: Path, found: dict) -> None:
    """Both plots side by side as `root`/reliability.png; nothing where no image was counted."""
    if not found["images"]:
        return
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(8.4, 4.0), layout="constrained", facecolor="white")
        coverage, spread = figure.subplots(1, 2)
        draw_coverage(coverage, found, SOLID[FIRST], SOLID[INK])
        draw_spread(spread, found, SOLID[FIRST], SOLID[INK])
        for axes in (coverage, spread):
            axes.grid(color="#dddddd", linewidth=0.8)
            axes.legend(frameon=False, loc="upper left")
        FigureCanvasAgg(figure)
        write_whole(root / RELIABILITY, lambda stream: figure.savefig(stream, format="png", dpi=120))


def inline(found: dict) -> list[Markup]:
    """Both for a page."""
    drawn = []
    covered = "; ".join(f"{one['nominal']:.0%} intervals cover {one['mean']:.0%}" for one in found["rank_coverage"])
    for draw, told in ((draw_coverage, f"Coverage of rank intervals. {covered}."), (draw_spread, "Error against predicted deviation.")):
        with matplotlib.rc_context(SETTINGS):
            figure, axes = axes_of("", "")
            draw(axes, found, FIRST, INK)
            drawn.append(inline_svg(figure, told))
    return drawn


def draw_coverage(axes: Axes, found: dict, colour: str, ink: str) -> None:
    """Of the rank intervals, with the 95 % interval over images."""
    known = found["rank_coverage"]
    nominal, mean = [one["nominal"] for one in known], [one["mean"] for one in known]
    errors = None if known[0]["low"] is None else [one["high"] - one["mean"] for one in known]
    axes.plot([0, 1], [0, 1], color=ink, linestyle="--", linewidth=1.2, label="calibrated")
    axes.errorbar(nominal, mean, errors, color=colour, marker="o", markersize=4, linewidth=1.2, label="intervals of ranks")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="nominal coverage", ylabel="share of pixels inside")


def draw_spread(axes: Axes, found: dict, colour: str, ink: str) -> None:
    """A point per group of pixels."""
    predicted, error = [one["predicted"] for one in found["groups"]], [one["error"] for one in found["groups"]]
    most = 1.05 * max(*predicted, *error, 1e-3)
    axes.plot([0, most], [0, most], color=ink, linestyle="--", linewidth=1.2, label="calibrated")
    axes.plot(predicted, error, color=colour, marker="o", markersize=4, linewidth=1.2, label="pixels by spread")
    axes.set(xlim=(0, most), ylim=(0, most), xlabel="predicted standard deviation of [0, 1]", ylabel="root mean square error")
