"""Small plots as SVG that lives inside a page: its colours are the page's own, so that it follows light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from math import isqrt

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, FAINT, FIRST, SECOND = "#000001", "#000002", "#000003", "#000004"
COLOURS = {INK: "var(--soft)", FAINT: "var(--line)", FIRST: "var(--accent)", SECOND: "var(--second)"}
"""What matplotlib is told to draw with, a stand-in each, and the colour of the page it becomes."""

SETTINGS = {"svg.fonttype": "none", "font.size": 11, "font.sans-serif": ["DejaVu Sans"]}


def histogram(series: Mapping[str, Sequence[float]], xlabel: str, mark: tuple[str, float] | None = None) -> Markup:
    """How often which value occurs, for up to two series over shared bins; `mark` = (label, value) is a dashed line."""
    everything = [value for values in series.values() for value in values]
    low, high = min(everything), max(everything)
    around = 0.0 if high > low else max(abs(low), 1.0) * 0.05
    bins = min(40, max(8, 2 * isqrt(len(everything))))
    with matplotlib.rc_context(SETTINGS):
        figure, axes = axes_of(xlabel, "images")
        for colour, (label, values) in zip((FIRST, SECOND), series.items(), strict=False):
            axes.hist(values, bins, range=(low - around, high + around), label=label, color=colour, alpha=0.6, edgecolor=colour)
        if mark is not None:
            axes.axvline(mark[1], color=INK, linestyle="--", linewidth=1.2, label=mark[0])
        axes.yaxis.get_major_locator().set_params(integer=True)
        told = "; ".join(f"{label}: {len(values)} values from {min(values):.4g} to {max(values):.4g}" for label, values in series.items())
        return inline_svg(figure, f"Histogram of {xlabel}. {told}.")


def scatter(x: Sequence[float], y: Sequence[float], xlabel: str, ylabel: str) -> Markup:
    """A point per image and, dashed, the line of no change."""
    with matplotlib.rc_context(SETTINGS):
        figure, axes = axes_of(xlabel, ylabel)
        axes.scatter(x, y, s=36 if len(x) < 100 else 12, color=FIRST, alpha=0.6, linewidths=0, label="an image")
        axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())  # the line is to run through the points' range, not to widen it
        axes.axline((x[0], x[0]), slope=1, color=INK, linestyle="--", linewidth=1.2, label="no gain")
        gained = sum(b > a for a, b in zip(x, y, strict=True))
        return inline_svg(figure, f"{ylabel} against {xlabel}, a point per image; {gained} of {len(x)} lie above the line of no gain.")


def axes_of(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """A figure with one plot in the page's colours."""
    figure = Figure(figsize=(5.0, 3.0), layout="constrained", facecolor="none")
    axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel, facecolor="none")
    axes.locator_params(axis="x", nbins=6)
    axes.set_axisbelow(True)
    axes.grid(color=FAINT, linewidth=0.8)
    axes.tick_params(colors=INK, length=0)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(INK)
    return figure, axes


def inline_svg(figure: Figure, description: str) -> Markup:
    """The figure without what only a file of its own would need; `description` is read out to who cannot see it.

    Salted with it, the ids that clips and markers are referred to by are the plot's own in a page of several.
    """
    stream = io.BytesIO()
    figure.legend(loc="outside upper right", ncols=3, frameon=False, labelcolor=INK)
    with matplotlib.rc_context({"svg.hashsalt": description}):
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue().decode()
    for stand_in, colour in COLOURS.items():
        text = text.replace(stand_in, colour)
    used = set(re.findall(r"#(\w+)", text))
    text = re.sub(r' id="([^"]*)"', lambda found: found.group() if found[1] in used else "", text)
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', text).group()
    body = text[text.index(">", text.index("<svg")) + 1 :]
    return Markup(f'<svg class="plot" role="img" aria-label="{escape(description)}" {box}>{body}')


def png(figure: Figure) -> bytes:
    """The same bytes for the same plot."""
    stream = io.BytesIO()
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(stream, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    return stream.getvalue()
