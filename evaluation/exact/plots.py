"""What a truth sweep looks like: clouds of samples over exact ones, maps of mean and deviation, histograms of ranks."""

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


def draw(jobs: Sequence[dict]) -> dict[str, Figure]:
    """File name → figure, for the jobs of a sweep in the table's order, each with its `label` and `folder`."""
    figures = {}
    for problem in dict.fromkeys(job["problem"] for job in jobs):
        own = [job for job in jobs if job["problem"] == problem]
        kept = [np.load(job["folder"] / CLOUDS) for job in own]
        labels = [job["label"] for job in own]
        images = [(label, one) for label, one in zip(labels, kept, strict=True) if "solved_mean" in one]
        if "exact" in kept[0]:
            figures[f"{problem}-samples"] = clouds(problem, list(zip(labels, kept, strict=True)))
        elif images:
            figures[f"{problem}-maps"] = maps(problem, images)
        ranked = [(job["label"], job["histograms"]) for job in own if job["histograms"] and job["failed"] < job["runs"]]
        if ranked:
            figures[f"{problem}-ranks"] = ranks(problem, ranked)
    return figures


def clouds(problem: str, kept: Sequence[tuple[str, dict]]) -> Figure:
    """A panel per solver: its samples of the first measurement's posterior over exact ones, and a cross at the truth."""
    figure, panels = panelled(f"{problem}: samples (blue) over exact ones (grey)", len(kept))
    exact = kept[0][1]["exact"]
    reach = 1.5 * np.abs(exact - exact.mean(0)).max(0) + 1e-6
    centre = exact.mean(0)
    for axes, (label, one) in zip(panels, kept, strict=True):
        axes.scatter(*exact.T, s=5, color=EXACT, linewidths=0)
        axes.scatter(*one["samples"].T, s=5, color=SOLVED, linewidths=0, alpha=0.7)
        axes.set(xlim=(centre[0] - reach[0], centre[0] + reach[0]), ylim=(centre[1] - reach[1], centre[1] + reach[1]))
        titled(axes, label)
    return figure


def maps(problem: str, kept: Sequence[tuple[str, dict]]) -> Figure:
    """A column for y, one for the truth and the exact posterior, one per solver; rows of an image, mean and deviation."""
    shape, first = tuple(kept[0][1]["shape"].astype(int)), kept[0][1]
    columns = [("measured", [first["y"], None, None]), ("truth and exact", [first[key] for key in ("truth", "mean", "std")])]
    columns += [(label, [one["sample"][0], one["solved_mean"], one["solved_std"]]) for label, one in kept]
    most = float(first["std"].max()) * 1.5
    figure = Figure(figsize=(1.4 * len(columns), 5.2), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(3, len(columns), squeeze=False)
    for line, (label, images) in zip(panels.T, columns, strict=True):
        for k, (axes, image) in enumerate(zip(line, images, strict=True)):
            axes.axis("off")
            if image is not None:
                low, high, colours = (0.0, most, "magma") if k == 2 else (-1.0, 1.0, "gray")
                axes.imshow(shown(image, shape, low, high), cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        titled(line[0], label)
    figure.suptitle(f"{problem}: an image or sample in [−1, 1], the mean, the deviation from 0 to {most:.2f}", fontsize=9)
    return figure


def shown(image: np.ndarray, shape: tuple[int, int, int], low: float, high: float) -> np.ndarray:
    """(C·H·W,) → what imshow takes: one channel as it is, three within [0, 1]."""
    channels = image.reshape(shape)
    return channels[0] if shape[0] == 1 else np.clip((channels.transpose(1, 2, 0) - low) / (high - low), 0.0, 1.0)


def ranks(problem: str, kept: Sequence[tuple[str, list[list[int]]]]) -> Figure:
    """A panel per solver: how often the truth falls into each tenth of its samples, a line per quantity; flat is right."""
    figure, panels = panelled(f"{problem}: ranks of the truth among samples, flat where they are right", len(kept))
    for axes, (label, histograms) in zip(panels, kept, strict=True):
        for counts, (name, colour) in zip(histograms, names(len(histograms)), strict=True):
            axes.stairs(np.array(counts) / sum(counts), np.linspace(0, 1, len(counts) + 1), label=name, color=colour, linewidth=1.2)
        axes.axhline(0.1, color=EXACT, linestyle="--", linewidth=1)
        axes.set_ylim(0, 1)
        titled(axes, label)
    panels[0].legend(fontsize=6, frameon=False)
    return figure


def names(count: int) -> list[tuple[str, str]]:
    """What each ranked quantity is called, and its colour: coordinates along the leading axes, then the misfit."""
    colours = ["#2f7fc1", "#2a9d74", "#8c6bb1"]
    return [(f"axis {k + 1}", colours[k]) for k in range(count - 1)] + [("misfit", "#d9692b")]


def panelled(title: str, count: int) -> tuple[Figure, list[Axes]]:
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
    """The solver, and below it its settings, two a line."""
    name, *settings = label.split(" ") if "=" in label else [label]
    lines = [" ".join(settings[i : i + 2]) for i in range(0, len(settings), 2)]
    axes.set_title("\n".join([name, *lines]), fontsize=7, color=INK)
    axes.tick_params(labelsize=6, length=2)
