"""The points of benchmarks/time_to_quality.py: a CSV file that grows, the plots, and who reaches a quality first."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import isnan
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from tabulate import tabulate

from diffusion_priors.evaluation.reporting.charts import GREY, SERIES, STYLE
from diffusion_priors.evaluation.sweeps.plots import MARKERS
from diffusion_priors.runs.files import append_line, write_whole

COLUMNS = ["task", "solver", "steps", "image", "psnr", "lpips", "forwards", "vjps", "seconds", "machine"]
SCORES = {"psnr": ("PSNR (dB)", 2, 1), "lpips": ("LPIPS", 4, -1)}
"""Score → its name on an axis, its decimals, and the sign of what is better."""
SCALES = {"psnr": {"value": "linear"}, "lpips": {"value": "log", "subs": [2, 5]}}
"""Score → the scale of its axis: small values of LPIPS differ as much as large ones."""
COSTS = {"nfe": "network evaluations per image, forward and vjp", "seconds": "seconds per image"}


class Key(NamedTuple):
    """A solver with a number of steps on a task."""

    task: str
    solver: str
    steps: int


@dataclass(frozen=True)
class Point:
    """What a key costs for an image, and its scores by image."""

    key: Key
    nfe: float
    seconds: float
    machine: str
    scores: dict[str, list[float]]

    def mean(self, score: str) -> float:
        return sum(self.scores[score]) / len(self.scores[score])


def append(path: Path, key: Key, rows: Sequence[dict]) -> None:
    """Add the images of a point to the file, all of them or none."""
    lines = [] if path.exists() else [",".join(COLUMNS)]
    lines += [",".join(str((key._asdict() | row)[column]) for column in COLUMNS) for row in rows]
    append_line(path, "\n".join(lines))


def set_seconds(path: Path, each: Mapping[tuple[str, str], float], machine: str) -> None:
    """Write the seconds of all points of the file: their evaluations times the seconds of `each` one, by task and solver."""
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        evaluations = float(row["forwards"]) + float(row["vjps"])
        row |= {"seconds": f"{evaluations * each[row['task'], row['solver']]:.4f}", "machine": machine}
    lines = [",".join(COLUMNS), *(",".join(row[column] for column in COLUMNS) for row in rows)]
    write_whole(path, lambda stream: stream.write(("\n".join(lines) + "\n").encode()))


def read(path: Path) -> dict[Key, Point]:
    """The points of the file, none where there is no file."""
    if not path.exists():
        return {}
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    groups: dict[Key, list[dict]] = {}
    for row in rows:
        groups.setdefault(Key(row["task"], row["solver"], int(row["steps"])), []).append(row)
    return {key: _point(key, found) for key, found in groups.items()}


def _point(key: Key, rows: list[dict]) -> Point:
    scores = {score: [float(row[score]) for row in rows] for score in SCORES}
    nfe = sum(float(row["forwards"]) + float(row["vjps"]) for row in rows) / len(rows)
    return Point(key, nfe, sum(float(row["seconds"]) for row in rows) / len(rows), rows[0]["machine"], scores)


def reference(points: Sequence[Point], task: str) -> Point | None:
    """DPS with the most steps."""
    return max((point for point in points if point.key[:2] == (task, "dps")), key=lambda point: point.key.steps, default=None)


def reaches(point: Point, goal: Point, scores: Sequence[str]) -> bool:
    """Whether its means are as good as those of `goal`."""
    return all(SCORES[score][2] * (point.mean(score) - goal.mean(score)) >= 0 for score in scores)


def first(points: Sequence[Point], goal: Point, scores: Sequence[str], cost: Callable[[Point], float]) -> Point:
    """The cheapest point on the task of `goal` that is as good; `goal` itself at the latest."""
    return min((point for point in points if point.key.task == goal.key.task and reaches(point, goal, scores)), key=cost)


def table(points: Sequence[Point]) -> str:
    """For each task, who reaches DPS with the most steps in the fewest evaluations and in the least time."""
    rows = []
    for task in dict.fromkeys(point.key.task for point in points):
        goal = reference(points, task)
        if goal is None:
            continue
        measured = [score for score in SCORES if not isnan(goal.mean(score))]
        for scores in [*([score] for score in measured), *([measured] if len(measured) > 1 else [])]:
            fewest, fastest = (first(points, goal, scores, cost) for cost in (lambda p: p.nfe, lambda p: p.seconds))
            values = ", ".join(f"{score.upper()} {goal.mean(score):.{SCORES[score][1]}f}" for score in scores)
            spent = [f"{values} (DPS, {goal.key.steps} steps)", f"{goal.nfe:.0f}, {goal.seconds:.2f} s"]
            rows.append([task, *spent, *map(_cell, (fewest, fastest)), f"{goal.seconds / fastest.seconds:.1f}"])
    heads = ["task", "to reach", "NFE, seconds of DPS", "fewest evaluations", "least time", "times as fast"]
    return tabulate(rows, heads, tablefmt="pipe", disable_numparse=True)


def _cell(point: Point) -> str:
    scores = ", ".join(f"{point.mean(score):.{SCORES[score][1]}f}" for score in SCORES)
    return f"`{point.key.solver}`, {point.key.steps} steps: {point.nfe:.0f} NFE, {point.seconds:.2f} s ({scores})"


class Curve(NamedTuple):
    """The means of a solver over its costs, the smallest first."""

    solver: str
    costs: list[float]
    means: list[float]


def curves(points: Sequence[Point], task: str, score: str, cost: str) -> list[Curve]:
    """A curve for each solver; none where the score has no value."""
    found = []
    for solver in dict.fromkeys(point.key.solver for point in points if point.key.task == task):
        own = sorted((getattr(point, cost), point.mean(score)) for point in points if point.key[:2] == (task, solver))
        kept = [pair for pair in own if not isnan(pair[1])]
        if kept:
            found.append(Curve(solver, *map(list, zip(*kept, strict=True))))
    return found


def plot(points: Sequence[Point], folder: Path) -> list[Path]:
    """A chart for each task, score and cost."""
    written = []
    for task in dict.fromkeys(point.key.task for point in points):
        goal = reference(points, task)
        for score, cost in product(SCORES, COSTS):
            if found := curves(points, task, score, cost):
                figure = chart(found, COSTS[cost], score, task, None if goal is None else goal.mean(score))
                written.append(folder / f"{task}-{score}-{cost}.png")
                figure.savefig(written[-1], dpi=150)
    return written


def chart(found: Sequence[Curve], xlabel: str, score: str, title: str, goal: float | None) -> Figure:
    """The curves of a score over a logarithmic axis; `goal` is a level to reach."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.4), layout="constrained")
        axes = figure.add_subplot(xlabel=xlabel, ylabel=SCORES[score][0], xscale="log")
        axes.set_yscale(**SCALES[score])
        axes.set_title(title, loc="left", fontsize=11)
        if goal is not None:
            axes.axhline(goal, color=GREY, ls="--", lw=1.0)
        for i, curve in enumerate(found):
            style = {"color": SERIES[i % len(SERIES)], "marker": MARKERS[i // len(SERIES) % len(MARKERS)]}
            axes.plot(curve.costs, curve.means, label=curve.solver, ms=5, lw=1.4, **style)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: format(value, ".6g")))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: format(value, ".6g")))
        axes.xaxis.set_minor_formatter(NullFormatter())
        figure.legend(loc="outside lower center", ncols=5)
    return figure
