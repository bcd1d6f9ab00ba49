"""The table of a truth sweep: every solver on every problem, exact samples first."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from diffusion_priors.evaluation.exact.results import EXACT_POSTERIOR
from diffusion_priors.runs.config import flat

COLUMNS = {
    "w2": ("sliced W₂", ".3f"),
    "mean": ("mean error", ".3f"),
    "covariance": ("cov. error", ".3f"),
    "spread": ("spread", ".2f"),
    "inside_50": ("in 50 %", ".0%"),
    "inside_95": ("in 95 %", ".0%"),
    "ranks": ("ranks p", ".2g"),
}
"""The figures of `evaluation.exact.distances` and ranks, their headings, and how they are written."""

EXACT = "exact samples"


def read(root: Path) -> list[dict]:
    """What the jobs under `root` found, by problem, then by distance; each with its `label`: the solver, what was varied or tuned."""
    jobs = [json.loads(path.read_text(encoding="utf-8")) | {"folder": path.parent} for path in sorted(root.glob(f"*/{EXACT_POSTERIOR}"))]
    varied = varied_settings(jobs)
    for job in jobs:
        told = {key for key, solver in varied if solver == job["solver"]} | {f"solver.{key}" for key in job["tuned"]}
        own = [f"{key.rsplit('.', 1)[-1]}={value}" for key, value in flat(job["settings"]).items() if key in told]
        job["label"] = " ".join([job["solver"], *own])
    return sorted(jobs, key=lambda job: (job["problem"], order(job["figures"].get("w2")), job["label"]))


def order(value: float | None) -> float:
    return float("inf") if value is None else value


def varied_settings(jobs: Sequence[dict]) -> set[tuple[str, str]]:
    """(key, solver) of the settings that differ between jobs of one problem and solver."""
    found = set()
    for solver in {job["solver"] for job in jobs}:
        for problem in {job["problem"] for job in jobs}:
            own = [flat(job["settings"]) for job in jobs if (job["solver"], job["problem"]) == (solver, problem)]
            found |= {(key, solver) for one in own for key in one if any(other.get(key) != one[key] for other in own)}
    return found


def rows(jobs: Sequence[dict]) -> list[list[str]]:
    """A line for each problem's exact samples, then one for each of its jobs."""
    drawn, problem = [], None
    for job in jobs:
        if job["problem"] != problem:
            problem = job["problem"]
            drawn.append([problem, EXACT, *cells(job["floor"]), "", ""])
        spent = f"{job['nfe_forward']} + {job['nfe_vjp']}"
        label = job["label"] + (f" ({job['failed']} of {job['runs']} runs failed)" if job["failed"] else "")
        drawn.append(["", label, *cells(job["figures"]), f"{job['seconds']:.1f}", spent])
    return drawn


def cells(figures: dict) -> list[str]:
    return [cell(figures.get(key), form) for key, (_, form) in COLUMNS.items()]


def cell(value: float | None, form: str) -> str:
    if value is None:
        return "–"
    if form.endswith("g") and value < 1e-9:
        return "< 1e-9"
    return f"{value:.0e}" if value >= 1000.0 else format(value, form)


HEADINGS = ["problem", "solver", *(heading for heading, _ in COLUMNS.values()), "seconds", "NFE forward + vjp"]
ALIGNED = ("left", "left") + ("right",) * (len(HEADINGS) - 2)


def text(jobs: Sequence[dict]) -> str:
    return tabulate(rows(jobs), headers=HEADINGS, tablefmt="simple", disable_numparse=True, colalign=ALIGNED)


def markdown(jobs: Sequence[dict]) -> str:
    return tabulate(rows(jobs), headers=HEADINGS, tablefmt="pipe", disable_numparse=True, colalign=ALIGNED) + "\n"


def csv_text(jobs: Sequence[dict]) -> str:
    """Every figure in full, beside its floor."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    spent = ("steps", "seconds", "runs", "failed", "nfe_forward", "nfe_vjp")
    writer.writerow(["problem", "solver", *COLUMNS, *(f"{key}_exact" for key in COLUMNS), *spent])
    for job in jobs:
        figures = [job[kind].get(key) for kind in ("figures", "floor") for key in COLUMNS]
        writer.writerow([job["problem"], job["label"], *figures, *(job[key] for key in spent)])
    return stream.getvalue()
