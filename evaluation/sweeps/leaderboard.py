"""The leaderboard of a sweep: leaderboard.csv, .md and .html, and charts of the varied parameters."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from matplotlib.figure import Figure
from tabulate import tabulate

from diffusion_priors.evaluation.reporting.charts import inline_svg, png
from diffusion_priors.evaluation.reporting.finished_run import FinishedRun
from diffusion_priors.evaluation.reporting.format import counted, heading, spec_of
from diffusion_priors.evaluation.reporting.html import render
from diffusion_priors.evaluation.scores import BEST_OF_N, LEAST_RESIDUAL, MEASUREMENT, POSTERIOR_MEAN, SINGLE, metric_of
from diffusion_priors.evaluation.statistics import Estimate
from diffusion_priors.evaluation.sweeps.jobs import read_jobs
from diffusion_priors.evaluation.sweeps.parameters import NOT_SET, Parameter, plain, words
from diffusion_priors.evaluation.sweeps.plots import Line, Point, metric_plot, pareto_plot, pareto_set
from diffusion_priors.evaluation.sweeps.ranking import Leaderboard, nfe
from diffusion_priors.runs.files import write_whole
from diffusion_priors.runs.layout import REPORT, RunLayout

CSV, MARKDOWN, PAGE, PLOTS = "leaderboard.csv", "leaderboard.md", "leaderboard.html", "plots"


def write_leaderboard(root: Path, objective: str = "psnr") -> Leaderboard:
    """Read the jobs in `root` and write leaderboard.csv, .md, .html and plots/ there. Raises ValueError as Leaderboard does."""
    board = Leaderboard(root, read_jobs(root), objective)
    plots = draw_plots(board)
    for name, figure in plots.items():
        write_whole(root / PLOTS / f"{name}.png", _writing(png(figure)))
    write_whole(root / CSV, _writing(csv_text(board).encode()))
    write_whole(root / MARKDOWN, _writing(markdown(board, plots).encode()))
    render("leaderboard.html.j2", root / PAGE, page_values(board, plots))
    return board


def _writing(content: bytes) -> Callable[[BinaryIO], object]:
    return lambda stream: stream.write(content)


def csv_text(board: Leaderboard) -> str:
    """All values with all digits, a line per job; jobs without a rank come last."""
    stream = io.StringIO()
    jobs = [(rank, row.job, row.difference) for rank, row in enumerate(board.rows, 1)]
    jobs += [("", job, None) for reasons in board.unranked().values() for job, _ in reasons]
    rows = [_csv_row(board, rank, job, difference) for rank, job, difference in jobs]
    writer = csv.DictWriter(stream, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _csv_row(board: Leaderboard, rank: int | str, job: FinishedRun, difference: Estimate | None) -> dict:
    summary = job.summary or {}
    row = {"rank": rank, "folder": board.name(job)} | {p.key: plain(p.of(job)) for p in board.parameters}
    row |= {key: summary.get(key) for key in ("images", "records", "failed")}
    for statistic in (SINGLE, POSTERIOR_MEAN, LEAST_RESIDUAL, BEST_OF_N, MEASUREMENT):
        for metric in (*board.metrics, *(["residual"] if statistic is SINGLE else [])):
            row |= _csv_estimate(f"{statistic.key}.{metric}", job.estimate(statistic.key, metric))
    row |= {"nfe_forward": job.cost("nfe_forward"), "nfe_vjp": job.cost("nfe_vjp")}
    row |= _csv_estimate("seconds", job.seconds) | {"peak_memory_mib": job.cost("peak_memory_mib")}
    row |= _csv_estimate(f"difference_to_best.{board.objective}", difference)
    return row | {"measurements": job.measurements, "error": job.error, "not_applicable": job.not_applicable}


def _csv_estimate(name: str, found: Estimate | None) -> dict:
    values = found.to_dict() if found else dict.fromkeys(("mean", "se", "low", "high", "n"))
    return {f"{name}.{key}": value for key, value in values.items()}


def markdown(board: Leaderboard, plots: Iterable[str]) -> str:
    """leaderboard.md: the table for a repository or an issue."""

    def clean(text: str) -> str:
        return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")

    blocks = [f"# Leaderboard: {counted(len(board.jobs), 'job')} by {heading(board.objective)}"]
    blocks += [board.as_table("pipe", clean), "Mean ± standard error over the images."] if board.rows else []
    blocks += [clean(note) for note in board.footnotes()]
    for title, reasons in board.unranked().items():
        rows = [[clean(board.name(job)), clean(reason)] for job, reason in reasons]
        blocks += [f"## {title}", tabulate(rows, headers=["job", "reason"], tablefmt="pipe", disable_numparse=True)]
    blocks += [f"![{name}]({PLOTS}/{quote(name)}.png)" for name in plots]
    return "\n\n".join(blocks) + "\n"


def page_values(board: Leaderboard, plots: dict[str, Figure]) -> dict[str, object]:
    """What leaderboard.html.j2 shows."""
    statistics = [statistic for statistic in (SINGLE, POSTERIOR_MEAN) if statistic is SINGLE or board.has(statistic.key)]
    return {
        "board": board,
        "csv": CSV,
        "columns": [(s.key, metric, f"{s.prefix}{heading(metric)}") for s in statistics for metric in board.metrics],
        "difference_spec": f"+{spec_of(board.objective)}",
        "nfe": nfe,
        "plain": plain,
        "folder": lambda job: f"{quote(board.name(job))}/",
        "report": lambda job: f"{quote(board.name(job))}/{REPORT}" if RunLayout(job.folder).report.exists() else None,
        "plots": {name: inline_svg(figure, figure.axes[0].get_title(loc="left")) for name, figure in plots.items()},
    }


def draw_plots(board: Leaderboard) -> dict[str, Figure]:
    """File name → chart: each metric against each parameter that is a number, and quality against time."""
    plots = {}
    for parameter in board.parameters:
        for metric in board.metrics:
            jobs = [row.job for row in board.rows if row.job.estimate(SINGLE.key, metric) and parameter.of(row.job) is not NOT_SET]
            if len(parameter.numbers(jobs)) > 1:
                plots[f"{metric}-by-{parameter.name}"] = _metric_plot(board, parameter, metric, jobs)
    return plots | _pareto_plot(board)


def _metric_plot(board: Leaderboard, parameter: Parameter, metric: str, jobs: Sequence[FinishedRun]) -> Figure:
    """One line per combination of the other parameters. The title states what all lines have in common."""
    others = [p for p in board.parameters if p is not parameter]
    differing = [p for p in others if len({p.text(job) for job in jobs}) > 1]
    shared = words([p for p in others if p not in differing], jobs[0])
    lines: dict[str, list[FinishedRun]] = {}
    for job in sorted(jobs, key=lambda job: [p.order(job) for p in (*differing, parameter)]):
        lines.setdefault(words(differing, job), []).append(job)
    drawn = [Line(label, [parameter.of(job) for job in own], _means(own, metric)) for label, own in lines.items()]
    title = f"{heading(metric)} by {parameter.name}" + (f": {shared}" if shared else "")
    return metric_plot(drawn, parameter.axis, f"{heading(metric)}, 95 % interval", title)


def _pareto_plot(board: Leaderboard) -> dict[str, Figure]:
    """LPIPS against seconds; PSNR if no job has LPIPS, and no chart if none has PSNR."""
    for metric in ("lpips", "psnr"):
        jobs = [row.job for row in board.rows if row.job.estimate(SINGLE.key, metric) and row.job.seconds]
        if jobs:
            seconds, means = [job.seconds.mean for job in jobs], _means(jobs, metric)
            best = pareto_set([(cost, -metric_of(metric).gain * found.mean) for cost, found in zip(seconds, means, strict=True)])
            points = [Point(board.title(job), seconds[i], means[i], i in best) for i, job in enumerate(jobs)]
            title = f"{heading(metric)} against time; dashed: the jobs that no other beats in both"
            return {"pareto": pareto_plot(points, "seconds per image", f"{heading(metric)}, 95 % interval", title)}
    return {}


def _means(jobs: Iterable[FinishedRun], metric: str) -> list[Estimate]:
    return [job.estimate(SINGLE.key, metric) for job in jobs]
