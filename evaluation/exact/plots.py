"""The plots of a sweep over exact problems: samples over exact ones, maps of mean and deviation, histograms of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from diffusion_priors.evaluation.exact.results import CLOUDS

EXACT, SOLVED, INK = "#9aa0a8", "#2f7fc1", "#222222"
ACROSS = 4


def draw(runs: Sequence[dict]) -> dict[str, Figure]:
    """File name → figure, for the runs of a sweep in the order of the table, each with its `label` and `folder`."""
    figures = {}
    for problem in dict.fromkeys(run["problem"] for run in runs):
        solved = [run for run in runs if run["problem"] == problem]
        loaded = [(run["label"], np.load(run["folder"] / CLOUDS)) for run in solved]
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
    """One panel per run: its samples of the first measurement's posterior over exact samples."""
    figure, panels = panelled(f"{problem}: samples (blue) over exact samples (grey)", len(loaded))
    exact = loaded[0][1]["exact"]
    reach = 1.5 * np.abs(exact - exact.mean(0)).max(0) + 1e-6
    centre = exact.mean(0)
    for axes, (label, arrays) in zip(panels, loaded, strict=True):
        axes.scatter(*exact.T, s=5, color=EXACT, linewidths=0)
        axes.scatter(*arrays["samples"].T, s=5, color=SOLVED, linewidths=0, alpha=0.7)
        axes.set(xlim=(centre[0] - reach[0], centre[0] + reach[0]), ylim=(centre[1] - reach[1], centre[1] + reach[1]))
        titled(axes, label)
    return figure


def maps(problem: str, loaded: Sequence[tuple[str, dict]]) -> Figure:
    """One column for y, one for the ground truth and the exact posterior, one per run. The rows show an image, mean and deviation."""
    first = loaded[0][1]
    shape = tuple(first["shape"].astype(int))
    columns = [("measured", [first["y"], None, None]), ("truth and exact", [first[key] for key in ("truth", "mean", "std")])]
    columns += [(label, [arrays["sample"][0], arrays["solved_mean"], arrays["solved_std"]]) for label, arrays in loaded]
    most = float(first["std"].max()) * 1.5
    figure = Figure(figsize=(1.4 * len(columns), 5.2), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(3, len(columns), squeeze=False)
    for column, (label, images) in zip(panels.T, columns, strict=True):
        for k, (axes, image) in enumerate(zip(column, images, strict=True)):
            axes.axis("off")
            if image is not None:
                low, high, colours = (0.0, most, "magma") if k == 2 else (-1.0, 1.0, "gray")
                axes.imshow(displayed(image, shape, low, high), cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        titled(column[0], label)
    figure.suptitle(f"{problem}: an image or sample in [−1, 1], the mean, the deviation from 0 to {most:.2f}", fontsize=9)
    return figure


def displayed(image: np.ndarray, shape: tuple[int, int, int], low: float, high: float) -> np.ndarray:
    """(C·H·W,) → an array for imshow: one channel unchanged, three channels scaled to [0, 1]."""
    channels = image.reshape(shape)
    return channels[0] if shape[0] == 1 else np.clip((channels.transpose(1, 2, 0) - low) / (high - low), 0.0, 1.0)


def ranks(problem: str, ranked: Sequence[tuple[str, list[list[int]]]]) -> Figure:
    """One panel per run: how often the ground truth falls into each tenth of the samples, for each quantity. It should be flat."""
    figure, panels = panelled(f"{problem}: ranks of the ground truth among samples, flat if correct", len(ranked))
    for axes, (label, histograms) in zip(panels, ranked, strict=True):
        for counts, (name, colour) in zip(histograms, names(len(histograms)), strict=True):
            axes.stairs(np.array(counts) / sum(counts), np.linspace(0, 1, len(counts) + 1), label=name, color=colour, linewidth=1.2)
        axes.axhline(0.1, color=EXACT, linestyle="--", linewidth=1)
        axes.set_ylim(0, 1)
        titled(axes, label)
    panels[0].legend(fontsize=6, frameon=False)
    return figure


def names(count: int) -> list[tuple[str, str]]:
    """The name and the colour of each ranked quantity: coordinates along the leading axes, then the squared residual."""
    colours = ["#2f7fc1", "#2a9d74", "#8c6bb1"]
    return [(f"axis {k + 1}", colours[k]) for k in range(count - 1)] + [("‖y − A x‖²", "#d9692b")]


def panelled(title: str, count: int) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels, at most ACROSS in a row."""
    across = min(ACROSS, count)
    down = ceil(count / across)
    figure = Figure(figsize=(2.1 * across, 2.1 * down + 0.4), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(down, across, squeeze=False).flatten()
    for axes in panels[count:]:
        axes.axis("off")
    figure.suptitle(title, fontsize=9)
    return figure, list(panels[:count])


def titled(axes: Axes, label: str) -> None:
    """The solver as a title, and its settings below it, two per line."""
    name, *settings = label.split(" ") if "=" in label else [label]
    lines = [" ".join(settings[i : i + 2]) for i in range(0, len(settings), 2)]
    axes.set_title("\n".join([name, *lines]), fontsize=7, color=INK)
    axes.tick_params(labelsize=6, length=2)
