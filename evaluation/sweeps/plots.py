"""Charts of a sweep: a metric against a parameter, and quality against time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation

from diffusion_priors.evaluation.reporting.charts import FIRST, GREY, PAPER, SERIES, STYLE
from diffusion_priors.evaluation.statistics import Estimate

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DECADE, MOST_TICKS = 10.0, 8
DODGE, WIDEST = 4.0, 32.0  # typographic points between lines that share a value, and over all of them
WIDTH, HEIGHT = 6.4, 4.2  # inches


@dataclass(frozen=True)
class Line:
    """Estimates `y` at the values `x` of a parameter, in the order of `x`."""

    label: str
    x: Sequence[float]
    y: Sequence[Estimate]


@dataclass(frozen=True)
class Point:
    """A job in the plane of cost and quality. `best` points are joined and labelled."""

    label: str
    x: float
    y: Estimate
    best: bool


def pareto_set(points: Sequence[tuple[float, float]]) -> list[int]:
    """The indices of the points (cost, loss) that no other point dominates: none is as small in both and smaller in one.

    They are in the order of cost; equal points are all kept.
    """
    best: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: points[i]):
        if not best or points[i][1] < points[best[-1]][1] or points[i] == points[best[-1]]:
            best.append(i)
    return best


def metric_plot(lines: Sequence[Line], xlabel: str, ylabel: str, title: str) -> Figure:
    """A line per combination with 95 % intervals. Lines with a value in common are drawn next to each other."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(xlabel, ylabel, title)
        for i, line in enumerate(lines):
            points = (i - (len(lines) - 1) / 2) * min(DODGE, WIDEST / len(lines))
            shift = ScaledTranslation(points / 72, 0, figure.dpi_scale_trans)
            style = {"color": SERIES[i % len(SERIES)], "marker": MARKERS[i // len(SERIES) % len(MARKERS)], "label": line.label}
            errors, means = _errors(line.y), [found.mean for found in line.y]
            axes.errorbar(line.x, means, errors, **style, ms=5, lw=1.4, elinewidth=1, capsize=2.5, transform=axes.transData + shift)
            axes.update_datalim([(x, end) for x, found in zip(line.x, line.y, strict=True) for end in _ends(found)])
        values = sorted({x for line in lines for x in line.x})
        axes.margins(0.08)
        _scale(axes, values)
        axes.autoscale_view()
        if len(values) <= MOST_TICKS:
            axes.xaxis.set_major_locator(FixedLocator(values))
            axes.xaxis.set_minor_locator(NullLocator())
        if len(lines) > 1:
            columns = max(1, 80 // (8 + max(len(line.label) for line in lines)))
            figure.legend(loc="outside lower center", ncols=columns)
            figure.set_figheight(HEIGHT + 0.2 * (len(lines) // columns))  # the legend must not reduce the height of the axes
    return figure


def pareto_plot(points: Sequence[Point], xlabel: str, ylabel: str, title: str) -> Figure:
    """Every job with its 95 % interval. The Pareto-optimal jobs are labelled and joined by a line."""
    best = sorted((point for point in points if point.best), key=lambda point: (point.x, point.label))
    others = [point for point in points if not point.best]
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(xlabel, ylabel, title)
        axes.plot([p.x for p in best], [p.y.mean for p in best], color=FIRST, lw=1.2, ls="--")
        for group, colour, size in ((others, GREY, 5), (best, FIRST, 7)):
            means, errors = [p.y.mean for p in group], _errors([p.y for p in group])
            axes.errorbar([p.x for p in group], means, errors, fmt="o", ms=size, color=colour, ecolor=(colour, 0.5), elinewidth=0.8)
        axes.margins(0.12)
        _scale(axes, sorted({point.x for point in points}))
        _label(figure, axes, best, points)
    return figure


def _figure(xlabel: str, ylabel: str, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, loc="left", fontsize=11)
    return figure, axes


def _ends(found: Estimate) -> tuple[float, float]:
    """The interval, or the mean twice if there is none."""
    return (found.mean if found.low is None else found.low, found.mean if found.high is None else found.high)


def _errors(estimates: Sequence[Estimate]) -> list[list[float]]:
    """The lengths of the error bars below and above the means."""
    return [[found.mean - _ends(found)[0] for found in estimates], [_ends(found)[1] - found.mean for found in estimates]]


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis if the values span more than a decade; if they start at 0, it is linear up to the first positive value."""
    positive = [value for value in values if value > 0]
    if positive and values[0] >= 0 and positive[-1] > DECADE * positive[0]:
        axes.set_xscale("symlog", linthresh=positive[0]) if values[0] == 0 else axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: format(x, ".6g")))


def _label(figure: Figure, axes: Axes, best: Sequence[Point], points: Sequence[Point]) -> None:
    """Put each label where it hides the least of points, lines and other labels, and stays inside the frame."""
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()
    frame = axes.get_window_extent(renderer).extents
    centres = axes.transData.transform([(p.x, p.y.mean) for p in points])
    taken = [np.concatenate([centre - 5, centre + 5]) for centre in centres]
    for start, end in pairwise(axes.transData.transform([(p.x, p.y.mean) for p in best])):
        along = [start + (end - start) * i / 24 for i in range(25)]
        taken += [np.concatenate([place - 1, place + 1]) for place in along]
    for point in best:
        places = [(dx, dy) for dy in (9, -9, 0, 24, -24) for dx in (9, -9, 0) if (dx, dy) != (0, 0)]
        drawn = [_annotation(axes, point, dx, dy) for dx, dy in places]
        boxes = np.stack([text.get_window_extent(renderer).extents for text in drawn])
        chosen = int(np.argmin(_covered(boxes, np.stack(taken), frame)))
        taken.append(boxes[chosen])
        for text in drawn[:chosen] + drawn[chosen + 1 :]:
            text.remove()


def _annotation(axes: Axes, point: Point, dx: float, dy: float) -> Annotation:
    """The label of a point, moved by `dx` and `dy` typographic points."""
    ha = "left" if dx > 0 else "right" if dx < 0 else "center"
    va = "bottom" if dy > 0 else "top" if dy < 0 else "center"
    text = axes.annotate(point.label, (point.x, point.y.mean), (dx, dy), textcoords="offset points", ha=ha, va=va, fontsize=8.5)
    text.set_bbox({"facecolor": PAPER, "alpha": 0.8, "edgecolor": "none", "pad": 0.5})
    return text


def _covered(boxes: np.ndarray, taken: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """The area of each box that covers `taken`, plus ten times its area outside `frame`; boxes are rows (left, bottom, right, top)."""
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return _shared(boxes, taken).sum(1) + 10 * (areas - _shared(boxes, frame[None])[:, 0])


def _shared(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The area that each box has in common with each of the others, (boxes, others)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.prod(np.maximum(high - low, 0.0), axis=2)
