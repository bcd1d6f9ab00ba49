"""Charts for pages and for PNG files: one set of colours, one way to an inline SVG, one to a PNG."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from math import isqrt

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, FAINT, PAPER, GREY = "#323232", "#dddddd", "#fefefe", "#a3a3a3"
SERIES = ("#2f7fc1", "#d9692b", "#2a9d74", "#c06aa6", "#c79a00", "#4fa9d8", "#8a8f98", "#8c6bb1")
FIRST, SECOND = SERIES[:2]
PAGE_COLOURS = {
    INK: "var(--soft)",
    FAINT: "var(--line)",
    PAPER: "var(--card)",
    FIRST: "var(--accent)",
    SECOND: "var(--second)",
}
"""Colours that an inline SVG takes from its page, so that they follow the light and the dark scheme."""

STYLE = {
    "svg.fonttype": "none",
    "font.size": 10,
    "font.family": ["DejaVu Sans"],
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": FAINT,
    "legend.frameon": False,
}
"""The settings of matplotlib for every chart. Draw and save inside `matplotlib.rc_context(STYLE)`."""


def histogram(series: Mapping[str, Sequence[float]], xlabel: str, mark: tuple[str, float] | None = None) -> Markup:
    """The distribution of the values of up to two series, in shared bins. `mark` = (label, value) is a dashed line."""
    everything = [value for values in series.values() for value in values]
    low, high = min(everything), max(everything)
    margin = 0.0 if high > low else max(abs(low), 1.0) * 0.05
    bins = min(40, max(8, 2 * isqrt(len(everything))))
    with matplotlib.rc_context(STYLE):
        figure, axes = small_chart(xlabel, "images")
        for colour, (label, values) in zip((FIRST, SECOND), series.items(), strict=False):
            axes.hist(values, bins, range=(low - margin, high + margin), label=label, color=colour, alpha=0.6, edgecolor=colour)
        if mark is not None:
            axes.axvline(mark[1], color=INK, linestyle="--", linewidth=1.2, label=mark[0])
        axes.yaxis.get_major_locator().set_params(integer=True)
        add_legend(figure)
    ranges = "; ".join(f"{label}: {len(values)} values from {min(values):.4g} to {max(values):.4g}" for label, values in series.items())
    return inline_svg(figure, f"Histogram of {xlabel}. {ranges}.")


def scatter(x: Sequence[float], y: Sequence[float], xlabel: str, ylabel: str) -> Markup:
    """A point per image, and the line y = x dashed."""
    with matplotlib.rc_context(STYLE):
        figure, axes = small_chart(xlabel, ylabel)
        axes.scatter(x, y, s=36 if len(x) < 100 else 12, color=FIRST, alpha=0.6, linewidths=0, label="an image")
        axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())  # the line must not widen the range of the points
        axes.axline((x[0], x[0]), slope=1, color=INK, linestyle="--", linewidth=1.2, label="no gain")
        add_legend(figure)
    gained = sum(b > a for a, b in zip(x, y, strict=True))
    return inline_svg(figure, f"{ylabel} against {xlabel}, a point per image; {gained} of {len(x)} lie above the line of no gain.")


def small_chart(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """A figure with one chart, for the grid of charts on a run's page."""
    figure = Figure(figsize=(5.0, 3.0), layout="constrained")
    axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
    axes.locator_params(axis="x", nbins=6)
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
    return figure, axes


def add_legend(figure: Figure) -> None:
    """A legend above the chart, so that it hides no value."""
    figure.legend(loc="outside upper right", ncols=3)


def inline_svg(figure: Figure, description: str) -> Markup:
    """The element <svg> for a page; screen readers read the description aloud.

    Ids that nothing refers to are removed. The others depend on the description, so that the charts of a page share none.
    """
    stream = io.StringIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": description}):
        figure.savefig(stream, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", stream.getvalue(), flags=re.DOTALL)
    for colour, of_page in PAGE_COLOURS.items():
        text = text.replace(colour, of_page)
    used = set(re.findall(r"#(\w+)", text))
    text = re.sub(r' id="([^"]*)"', lambda found: found.group() if found[1] in used else "", text)
    view_box = re.search(r'viewBox="[^"]*"', text).group()
    content = text[text.index(">", text.index("<svg")) + 1 :]
    return Markup(f'<svg class="plot" role="img" aria-label="{escape(description)}" {view_box}>{content}')


def png(figure: Figure) -> bytes:
    """The content of a PNG file. Equal charts give equal bytes."""
    stream = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(stream, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    return stream.getvalue()
