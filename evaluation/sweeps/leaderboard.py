"""The leaderboard of a sweep: leaderboard.csv, .md and .html, and plots of what was varied."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from matplotlib.figure import Figure
from tabulate import tabulate

from diffusion_priors.evaluation.reporting.charts import png
from diffusion_priors.evaluation.reporting.finished_run import Job, read_jobs
from diffusion_priors.evaluation.reporting.format import heading
from diffusion_priors.evaluation.reporting.html import render
from diffusion_priors.evaluation.statistics import Estimate
from diffusion_priors.evaluation.sweeps.parameters import ABSENT, Parameter, plain, words
from diffusion_priors.evaluation.sweeps.plots import Line, Point, metric_plot, pareto_plot, pareto_set, svg
from diffusion_priors.evaluation.sweeps.ranking import Leaderboard, gain, nfe
from diffusion_priors.runs.files import write_whole

__all__ = ["Job", "Leaderboard", "read_jobs", "write_leaderboard"]

BLOCKS = {"single": "", "posterior_mean": "posterior mean: ", "best_of_n": "best of N: ", "measurement": "measurement: "}
"""The statistics of a summary, and what stands before a metric's heading there."""


def write_leaderboard(root: Path, objective: str = "psnr") -> Leaderboard:
    """Read the jobs under `root` and write leaderboard.csv, .md, .html and plots/ into it. Raises ValueError as Leaderboard does."""
    board = Leaderboard(root, read_jobs(root), objective)
    plots = draw_plots(board)
    for name, figure in plots.items():
        write_whole(root / "plots" / f"{name}.png", _writing(png(figure)))
    write_whole(root / "leaderboard.csv", _writing(csv_text(board).encode()))
    write_whole(root / "leaderboard.md", _writing(markdown(board, plots).encode()))
    render("leaderboard.html.j2", root / "leaderboard.html", page_values(board, plots))
    return board


def _writing(content: bytes) -> Callable[[BinaryIO], object]:
    return lambda stream: stream.write(content)


def csv_text(board: Leaderboard) -> str:
    """Every figure in full, a line per job, failed ones last."""
    stream = io.StringIO()
    jobs = [(rank, row.job, row.difference) for rank, row in enumerate(board.rows, 1)] + [("", job, None) for job in board.failed]
    rows = [_csv_row(board, rank, job, difference) for rank, job, difference in jobs]
    writer = csv.DictWriter(stream, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _csv_row(board: Leaderboard, rank: int | str, job: Job, difference: Estimate | None) -> dict:
    summary = job.summary or {}
    row = {"rank": rank, "folder": board.name(job)} | {p.key: plain(p.of(job)) for p in board.parameters}
    row |= {key: summary.get(key) for key in ("images", "records", "failed")}
    metrics = {block: board.metrics for block in BLOCKS} | {"single": [*board.metrics, "residual"]}
    for block, names in metrics.items():
        for metric in names:
            row |= _spread(f"{block}.{metric}", job.estimate(block, metric))
    row |= {"nfe_forward": job.cost("nfe_forward"), "nfe_vjp": job.cost("nfe_vjp")}
    row |= _spread("seconds", job.seconds) | {"peak_memory_mib": job.cost("peak_memory_mib")}
    row |= _spread(f"difference_to_best.{board.objective}", difference)
    return row | {"measurements": job.measurements, "error": job.error}


def _spread(name: str, found: Estimate | None) -> dict:
    values = asdict(found) if found else dict.fromkeys(("mean", "se", "low", "high", "n"))
    return {f"{name}.{key}": value for key, value in values.items()}


def markdown(board: Leaderboard, plots: Iterable[str]) -> str:
    """The page for a repository or an issue."""

    def clean(text: str) -> str:
        return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")

    parts = [f"# Leaderboard: {len(board.rows) + len(board.failed)} jobs by {heading(board.objective)}"]
    parts += [board.table("pipe", clean), "Mean ± standard error over the images."] if board.rows else []
    parts += [clean(note) for note in board.footnotes()]
    if board.failed:
        rows = [[clean(board.name(job)), clean(job.error)] for job in board.failed]
        parts += ["## Failed", tabulate(rows, headers=["job", "error"], tablefmt="pipe", disable_numparse=True)]
    parts += [f"![{name}](plots/{quote(name)}.png)" for name in plots]
    return "\n\n".join(parts) + "\n"


def page_values(board: Leaderboard, plots: dict[str, Figure]) -> dict[str, object]:
    """What leaderboard.html.j2 shows."""
    blocks = [block for block in ("single", "posterior_mean") if block == "single" or board.has(block)]
    return {
        "board": board,
        "columns": [(block, metric, f"{BLOCKS[block]}{heading(metric)}") for block in blocks for metric in board.metrics],
        "nfe": nfe,
        "plain": plain,
        "link": lambda path: quote(path.relative_to(board.root).as_posix()),
        "plots": {name: svg(figure, name) for name, figure in plots.items()},
    }


def draw_plots(board: Leaderboard) -> dict[str, Figure]:
    """File name → plot: each metric against each varied number, and quality against time."""
    plots = {}
    for parameter in board.parameters:
        for metric in board.metrics:
            jobs = [row.job for row in board.rows if row.job.estimate("single", metric) and parameter.of(row.job) is not ABSENT]
            if len(parameter.numbers(jobs)) > 1:
                plots[f"{metric}-by-{parameter.name}"] = _metric_plot(board, parameter, metric, jobs)
    return plots | _pareto_plot(board)


def _metric_plot(board: Leaderboard, parameter: Parameter, metric: str, jobs: Sequence[Job]) -> Figure:
    """One line per combination of the other parameters; what all lines share stands in the title."""
    others = [p for p in board.parameters if p is not parameter]
    differing = [p for p in others if len({p.text(job) for job in jobs}) > 1]
    shared = words([p for p in others if p not in differing], jobs[0])
    lines: dict[str, list[Job]] = {}
    for job in sorted(jobs, key=lambda job: [p.order(job) for p in (*differing, parameter)]):
        lines.setdefault(words(differing, job), []).append(job)
    drawn = [Line(label, [parameter.of(job) for job in own], _means(own, metric)) for label, own in lines.items()]
    title = f"{heading(metric)} by {parameter.name}" + (f": {shared}" if shared else "")
    return metric_plot(drawn, parameter.axis, f"{heading(metric)}, 95 % interval", title)


def _pareto_plot(board: Leaderboard) -> dict[str, Figure]:
    """LPIPS against seconds, PSNR where LPIPS has no value; nothing where neither has."""
    for metric in ("lpips", "psnr"):
        jobs = [row.job for row in board.rows if row.job.estimate("single", metric) and row.job.seconds]
        if jobs:
            seconds, means = [job.seconds.mean for job in jobs], _means(jobs, metric)
            best = pareto_set([(cost, -gain(metric) * found.mean) for cost, found in zip(seconds, means, strict=True)])
            points = [Point(board.title(job), seconds[i], means[i], i in best) for i, job in enumerate(jobs)]
            title = f"{heading(metric)} against time; dashed: the jobs that none beats in both"
            return {"pareto": pareto_plot(points, "seconds an image", f"{heading(metric)}, 95 % interval", title)}
    return {}


def _means(jobs: Iterable[Job], metric: str) -> list[Estimate]:
    return [job.estimate("single", metric) for job in jobs]
