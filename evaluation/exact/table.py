"""The table of a sweep over exact problems: every solver on every problem, exact samples first."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from diffusion_priors.evaluation.exact.results import EXACT_POSTERIOR, read_results
from diffusion_priors.runs.config import flat

COLUMNS = {
    "w2": ("sliced W₂", ".3f"),
    "mean": ("mean error", ".3f"),
    "covariance": ("cov. error", ".3f"),
    "spread": ("spread", ".2f"),
    "inside_50": ("in 50 %", ".0%"),
    "inside_95": ("in 95 %", ".0%"),
    "on_image": ("on an image", ".0%"),
    "weights": ("weights error", ".2f"),
    "heaviest": ("heaviest mode", ".2f"),
    "ranks": ("ranks p", ".2g"),
}
"""The values of `evaluation.exact.distances` and the p-value of the ranks, with their headings and number formats. A posterior
lacks some of them: regions need a density, and the shares of modes several."""

EXACT = "exact samples"


def read(root: Path) -> list[dict]:
    """The results of the runs under `root`, sorted by problem, then by distance.

    Each has a `label`: the solver and those of its settings that were varied or tuned.
    """
    runs = [read_results(path) | {"folder": path.parent} for path in sorted(root.glob(f"*/{EXACT_POSTERIOR}"))]
    varied = varied_settings(runs)
    for run in runs:
        shown = {key for key, solver in varied if solver == run["solver"]} | {f"solver.{key}" for key in run["tuned"]}
        values = [f"{key.rsplit('.', 1)[-1]}={value}" for key, value in flat(run["settings"]).items() if key in shown]
        run["label"] = " ".join([run["solver"], *values])
    return sorted(runs, key=lambda run: (run["problem"], order(run["distances"].get("w2")), run["label"]))


def order(value: float | None) -> float:
    return float("inf") if value is None else value


def varied_settings(runs: Sequence[dict]) -> set[tuple[str, str]]:
    """(key, solver) of the settings that differ between runs of the same problem and solver."""
    found = set()
    for solver, problem in {(run["solver"], run["problem"]) for run in runs}:
        alike = [flat(run["settings"]) for run in runs if (run["solver"], run["problem"]) == (solver, problem)]
        found |= {(key, solver) for one in alike for key in one if any(other.get(key) != one[key] for other in alike)}
    return found


def columns(runs: Sequence[dict]) -> list[str]:
    """The columns that at least one run has a value for."""
    return [key for key in COLUMNS if any(run[kind].get(key) is not None for run in runs for kind in ("distances", "floor"))]


def headings(runs: Sequence[dict]) -> list[str]:
    return ["problem", "solver", *(COLUMNS[key][0] for key in columns(runs)), "seconds", "NFE forward + vjp"]


def rows(runs: Sequence[dict]) -> list[list[str]]:
    """One row of exact samples per problem, followed by one row for each of its runs."""
    lines, problem, shown = [], None, columns(runs)
    for run in runs:
        if run["problem"] != problem:
            problem = run["problem"]
            lines.append([problem, EXACT, *cells(run["floor"], shown), "", ""])
        evaluations = f"{run['nfe_forward']} + {run['nfe_vjp']}"
        label = run["label"] + (f" ({run['failed']} of {run['samples']} samples failed)" if run["failed"] else "")
        lines.append(["", label, *cells(run["distances"], shown), f"{run['seconds']:.1f}", evaluations])
    return lines


def cells(values: dict, shown: Sequence[str]) -> list[str]:
    return [cell(values.get(key), COLUMNS[key][1]) for key in shown]


def cell(value: float | None, form: str) -> str:
    if value is None:
        return "–"
    if form.endswith("g") and value < 1e-9:
        return "< 1e-9"
    return f"{value:.0e}" if value >= 1000.0 else format(value, form)


def text(runs: Sequence[dict]) -> str:
    return _tabulated(runs, "simple")


def markdown(runs: Sequence[dict]) -> str:
    return _tabulated(runs, "pipe") + "\n"


def _tabulated(runs: Sequence[dict], form: str) -> str:
    names = headings(runs)
    aligned = ("left", "left") + ("right",) * (len(names) - 2)
    return tabulate(rows(runs), headers=names, tablefmt=form, disable_numparse=True, colalign=aligned)


def csv_text(runs: Sequence[dict]) -> str:
    """Every value with all digits, and its floor."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    spent = ("steps", "seconds", "samples", "failed", "nfe_forward", "nfe_vjp")
    writer.writerow(["problem", "solver", *COLUMNS, *(f"{key}_exact" for key in COLUMNS), *spent])
    for run in runs:
        values = [run[kind].get(key) for kind in ("distances", "floor") for key in COLUMNS]
        writer.writerow([run["problem"], run["label"], *values, *(run[key] for key in spent)])
    return stream.getvalue()
