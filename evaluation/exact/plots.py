"""The plots of a sweep over exact problems: samples over exact ones, maps of mean and deviation, histograms of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from diffusion_priors.evaluation.exact.results import read_clouds
from diffusion_priors.evaluation.reporting.charts import FIRST, GREY, INK, SECOND, SERIES, STYLE
from diffusion_priors.evaluation.reporting.format import counted

ACROSS = 4
COLUMNS, COLUMN, STRIP = 7, 1.5, 5.1
"""Of maps: how many solvers stand side by side, and in inches the width of one and the height of its three images."""
KINDS = ("image or sample", "mean", "deviation")
"""The images of a column of maps."""
PANEL, LETTER = 2.3, 0.072
"""Inches: the width of a panel, and of a letter of a figure's title."""
DPI = 200
"""Of the parts of a figure that are pixels in an SVG too."""
FURTHEST = 2.5
"""How far the frame of samples may be widened, so that one bad solver does not shrink all others to a dot."""


def draw(runs: Sequence[dict]) -> dict[str, Figure]:
    """File name → figure, for the runs of a sweep in the order of the table, each with its `label` and `folder`.

    Raises ValueError, in one line, for a run whose data of the plots are damaged.
    """
    figures = {}
    with matplotlib.rc_context(STYLE):
        for problem in dict.fromkeys(run["problem"] for run in runs):
            solved = [run for run in runs if run["problem"] == problem]
            loaded = [(run["label"], read_clouds(run["folder"])) for run in solved]
            images = [(label, arrays) for label, arrays in loaded if "solved_mean" in arrays]
            if "exact" in loaded[0][1]:
                figures[f"{problem}-samples"] = clouds(problem, loaded)
            elif images:
                figures[f"{problem}-maps"] = maps(problem, images)
            ranked = [(run["label"], run["histograms"]) for run in solved if run["histograms"] and run["failed"] < run["samples"]]
            if ranked:
                figures[f"{problem}-ranks"] = ranks(problem, ranked)
    return figures


def clouds(problem: str, loaded: Sequence[tuple[str, dict]]) -> Figure:
    """One panel per run: its samples of the first measurement's posterior over exact samples.

    The frame is the same in all panels. Samples beyond it are drawn at its edge and counted.
    """
    figure, panels = panelled(f"{problem}: samples (blue) over exact samples (grey)", len(loaded))
    exact = loaded[0][1]["exact"]
    centre, reach = exact.mean(0), frame(exact, [arrays["samples"] for _, arrays in loaded])
    low, high = centre - reach, centre + reach
    for axes, (label, arrays) in zip(panels, loaded, strict=True):
        axes.scatter(*exact.T, s=5, color=GREY, linewidths=0, rasterized=True)
        samples = arrays["samples"][np.isfinite(arrays["samples"]).all(1)]
        outside = ((samples < low) | (samples > high)).any(1)
        axes.scatter(*samples[~outside].T, s=5, color=FIRST, linewidths=0, alpha=0.7, rasterized=True)
        edge = np.clip(samples[outside], low + 0.02 * reach, high - 0.02 * reach)
        axes.scatter(*edge.T, s=14, marker="x", color=SECOND, linewidths=0.7, rasterized=True)
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        titled(axes, label, f"{counted(len(edge), 'sample')} beyond the frame" if len(edge) else "")
    labelled(panels, "first axis", "second axis")
    return figure


def frame(exact: np.ndarray, samples: Sequence[np.ndarray]) -> np.ndarray:
    """Half the width and height (2,) of a frame around exact samples (N, 2) that holds nearly all samples of most solvers."""
    base = 1.3 * np.abs(exact - exact.mean(0)).max(0) + 1e-6
    finite = [one[np.isfinite(one).all(1)] for one in samples]
    distances = [np.quantile((np.abs(one - exact.mean(0)) / base).max(1), 0.98) for one in finite if len(one)]
    return base * max(1.0, min(FURTHEST, max((one for one in distances if one <= FURTHEST), default=1.0) * 1.1))


def maps(problem: str, loaded: Sequence[tuple[str, dict]]) -> Figure:
    """One column for y if it gives an image, one for the ground truth and the exact posterior, one per run, at most COLUMNS side by side.

    A column shows an image, the mean and the deviation, one below the other.
    """
    first = loaded[0][1]
    shape = tuple(first["shape"].astype(int))
    columns = [("measured", [first["y"], None, None])] if "y" in first else []
    columns += [("truth and exact", [first[key] for key in ("truth", "mean", "std")])]
    columns += [(label, [arrays["sample"][0], arrays["solved_mean"], arrays["solved_std"]]) for label, arrays in loaded]
    most = float(first["std"].max()) * 1.5
    across, down = min(COLUMNS, len(columns)), ceil(len(columns) / COLUMNS)
    title = f"{problem}: samples and means from −1 (black) to 1 (white), deviations from 0 (black) to {most:.2f}"
    figure = sheet(title, COLUMN * across, STRIP * down + 0.5)
    panels = figure.subplots(len(KINDS) * down, across, squeeze=False)
    for k, (label, images) in enumerate(columns):
        row = len(KINDS) * (k // COLUMNS)
        column = panels[row : row + len(KINDS), k % COLUMNS]
        for axes, image, limits in zip(column, images, ((-1.0, 1.0), (-1.0, 1.0), (0.0, most)), strict=True):
            mapped(axes, image, shape, limits)
        titled(column[0], label, across=1)
    for k, axes in enumerate(panels[:, 0]):
        axes.set_ylabel(KINDS[k % len(KINDS)], fontsize=8)
    for axes in panels[-len(KINDS) :, len(columns) - COLUMNS * (down - 1) :].flatten():
        axes.remove()
    return figure


def mapped(axes: Axes, image: np.ndarray | None, shape: tuple[int, int, int], limits: tuple[float, float]) -> None:
    """An image between `limits`, in grey if they include negative values, else in colours; None leaves the panel empty."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if image is not None:
        colours = "gray" if limits[0] < 0.0 else "magma"
        axes.imshow(displayed(image, shape, *limits), cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="nearest")


def displayed(image: np.ndarray, shape: tuple[int, int, int], low: float, high: float) -> np.ndarray:
    """(C·H·W,) → an array for imshow: one channel unchanged, three channels scaled to [0, 1]."""
    channels = image.reshape(shape)
    return channels[0] if shape[0] == 1 else np.clip((channels.transpose(1, 2, 0) - low) / (high - low), 0.0, 1.0)


def ranks(problem: str, ranked: Sequence[tuple[str, list[list[int]]]]) -> Figure:
    """One panel per run: how often the ground truth falls into each tenth of the samples, for each quantity. It should be flat."""
    figure, panels = panelled(f"{problem}: ranks of the ground truth among the samples, flat (dashed) if correct", len(ranked))
    shares = [[np.array(counts) / max(1, sum(counts)) for counts in histograms] for _, histograms in ranked]
    top = 1.08 * max(0.3, *(share.max() for own in shares for share in own))
    for axes, (label, _), own in zip(panels, ranked, shares, strict=True):
        for share, (name, colour) in zip(own, names(len(own)), strict=True):
            axes.stairs(share, np.linspace(0, 1, len(share) + 1), label=name, color=colour, linewidth=1.2)
        axes.axhline(0.1, color=INK, linestyle="--", linewidth=1)
        axes.set(xlim=(0, 1), ylim=(0, top))
        titled(axes, label)
    labelled(panels, "rank of the truth", "share of measurements")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7)
    return figure


def names(count: int) -> list[tuple[str, str]]:
    """The name and the colour of each ranked quantity: coordinates along the leading axes, then the squared residual."""
    colours = [FIRST, SERIES[2], SERIES[7]]
    return [(f"axis {k + 1}", colours[k % 3]) for k in range(count - 1)] + [("‖y − A x‖²", SECOND)]


def panelled(title: str, count: int) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels, at most ACROSS in a row."""
    across = min(ACROSS, count)
    down = ceil(count / across)
    figure = sheet(title, PANEL * across + 0.3, 2.2 * down + 0.9)
    panels = figure.subplots(down, across, squeeze=False).flatten()
    for axes in panels[count:]:
        axes.remove()
    return figure, list(panels[:count])


def labelled(panels: Sequence[Axes], xlabel: str, ylabel: str) -> None:
    """The names of the axes, at the lowest panel of each column and the first of each row."""
    for k, axes in enumerate(panels):
        if k + ACROSS >= len(panels):
            axes.set_xlabel(xlabel, fontsize=7)
        if k % ACROSS == 0:
            axes.set_ylabel(ylabel, fontsize=7)


def sheet(title: str, width: float, height: float) -> Figure:
    """An empty figure under its title; it is as wide as the title at least. Sizes are in inches."""
    figure = Figure(figsize=(max(width, LETTER * len(title) + 0.3), height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=9, color=INK)
    return figure


def titled(axes: Axes, label: str, note: str = "", across: int = 2) -> None:
    """The solver as a title, its settings below it, `across` per line, and a note."""
    name, *settings = label.split(" ") if "=" in label else [label]
    lines = [" ".join(settings[i : i + across]) for i in range(0, len(settings), across)]
    axes.set_title("\n".join([name, *lines, *([note] if note else [])]), fontsize=7, color=INK)
    axes.tick_params(labelsize=6, length=2)
