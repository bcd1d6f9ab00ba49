"""One chart of a sweep over exact problems: the distance and the spread of every solver on every problem."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LogNorm, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure

from diffusion_priors.evaluation.exact.plots import sheet
from diffusion_priors.evaluation.reporting.charts import INK

FARTHEST = 20.0
"""The ratio of distances from which on the colour is the same."""
MOST = 100
"""The largest number that a cell shows."""
ROW, COLUMN = 0.21, 0.62
"""Inches of a solver's row and of a problem's column."""


def overview(runs: Sequence[dict]) -> Figure:
    """Two tables in colour: sliced W₂ divided by that of exact samples, and the spread. Solvers near the posterior stand on top.

    Of several runs of a solver on a problem, the one at the smallest distance counts. An empty cell: not applicable, or all samples failed.
    """
    solvers, problems = ([*dict.fromkeys(sorted(run[key] for run in runs))] for key in ("solver", "problem"))
    ratio, spread = (np.full((len(solvers), len(problems)), np.nan) for _ in range(2))
    for run in reversed(runs):  # sorted by distance: the nearest comes last
        if run["distances"].get("w2") is not None:
            place = solvers.index(run["solver"]), problems.index(run["problem"])
            ratio[place] = run["distances"]["w2"] / run["floor"]["w2"]
            spread[place] = run["distances"]["spread"]
    ranked = np.argsort([np.exp(np.nanmean(np.log(row))) if np.isfinite(row).any() else np.inf for row in ratio], kind="stable")
    names = [solvers[k] for k in ranked]
    figure = sheet("Every solver on every exact problem", 2 * COLUMN * len(problems) + 2.2, ROW * len(solvers) + 1.7)
    left, right = figure.subplots(1, 2, sharey=True)
    coloured(left, ratio[ranked], "magma_r", LogNorm(1.0, FARTHEST), "{:.1f}", "sliced W₂ / that of exact samples\n(1: a sampler)")
    coloured(right, spread[ranked], "RdBu", TwoSlopeNorm(1.0, 0.0, 2.0), "{:.2f}", "spread\n(below 1: too narrow)")
    for axes in (left, right):
        axes.set_xticks(range(len(problems)), problems, rotation=40, ha="right", fontsize=7)
    left.set_yticks(range(len(names)), names, fontsize=7)
    return figure


def coloured(axes: Axes, values: np.ndarray, colours: str | Colormap, norm: Normalize, form: str, title: str) -> None:
    """A cell for each value, with its number."""
    drawn = axes.imshow(np.ma.masked_invalid(values), cmap=colours, norm=norm, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            red, green, blue, _ = drawn.cmap(norm(value))
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            text = form.format(value) if value < MOST else f"> {MOST}"
            axes.text(column, row, text, ha="center", va="center", fontsize=6, color="white" if dark else INK)
    axes.set_title(title, fontsize=7, color=INK)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
