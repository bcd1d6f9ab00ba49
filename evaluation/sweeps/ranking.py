"""The jobs of a sweep in order, best first, and how far each is from the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from diffusion_priors.evaluation.reporting.finished_run import FinishedRun
from diffusion_priors.evaluation.reporting.format import absent, forward_and_vjp, heading, number, plus_minus, signed_difference, spec_of
from diffusion_priors.evaluation.reporting.image_records import read_images
from diffusion_priors.evaluation.scores import METRICS, SINGLE, metric_of
from diffusion_priors.evaluation.statistics import Estimate, estimate
from diffusion_priors.evaluation.sweeps.parameters import swept_parameters, words

ALWAYS_SHOWN = ("psnr", "ssim", "lpips")
"""The metrics that have a column even if no job measured them."""


@dataclass(frozen=True)
class RankedJob:
    """A finished job. `difference` is the mean paired difference, job − best; None for the best and without a common measurement."""

    job: FinishedRun
    difference: Estimate | None

    @property
    def is_tied(self) -> bool:
        """Whether the interval of the difference contains 0."""
        return self.difference is not None and self.difference.low is not None and self.difference.low <= 0 <= self.difference.high


class Leaderboard:
    """The finished jobs in `root`, ordered by the mean of `objective`; jobs without a value for it come last.

    Jobs that failed and jobs that are not applicable have no rank. Raises ValueError without jobs and for an unknown objective.
    """

    def __init__(self, root: Path, jobs: Sequence[FinishedRun], objective: str = "psnr") -> None:
        if not jobs:
            raise ValueError(f"{root} holds no job; give the folder of a sweep")
        finished = [job for job in jobs if job.summary is not None]
        known = list(dict.fromkeys((*ALWAYS_SHOWN, *(metric for job in finished for metric in job.summary["metrics"]))))
        if objective not in known:
            raise ValueError(f"objective={objective} is unknown; set objective to one of {', '.join(known)}")
        self.root, self.objective = root, objective
        self.jobs, self.metrics = list(jobs), known
        self.parameters = swept_parameters(jobs)
        self.failed = [job for job in jobs if job.error is not None]
        self.not_applicable = [job for job in jobs if job.not_applicable is not None]
        ranked = sorted(finished, key=self._order)
        best = image_scores(ranked[0], objective) if ranked else {}
        self.rows = [RankedJob(job, None if job is ranked[0] else difference(image_scores(job, objective), best)) for job in ranked]

    def _order(self, job: FinishedRun) -> tuple:
        found = job.estimate(SINGLE.key, self.objective)
        return (1, 0.0, self.name(job)) if found is None else (0, -metric_of(self.objective).gain * found.mean, self.name(job))

    def name(self, job: FinishedRun) -> str:
        return job.folder.relative_to(self.root).as_posix()

    def title(self, job: FinishedRun) -> str:
        """What distinguishes a job: its parameters, or its folder if nothing was varied."""
        return words(self.parameters, job) or self.name(job)

    def footnotes(self) -> list[str]:
        """Why values are missing or not reliable, each note once."""
        notes = [f"* {note}" for note in dict.fromkeys(row.job.summary.get("footnote") for row in self.rows) if note]
        failed = [row.job for row in self.rows if row.job.summary["failed"]]
        notes += [f"{self.title(job)}: {job.summary['failed']} of {job.summary['records']} restorations failed" for job in failed]
        if self.objective not in METRICS:
            notes.append(f"The direction of {self.objective} is not known: the order assumes that higher is better")
        return notes + self._comparability()

    def _comparability(self) -> list[str]:
        """Which jobs may be as good as the best, and which cannot be compared with it."""
        tied = [self.title(row.job) for row in self.rows if row.is_tied]
        apart = [row for row in self.rows[1:] if row.difference is None and row.job.estimate(SINGLE.key, self.objective)]
        notes = []
        if tied:
            what = "Not significantly different from the best (the 95 % interval of the paired difference contains 0)"
            notes.append(f"{what}: {'; '.join(tied)}")
        if apart:
            notes.append(f"No measurement in common with the best, so the means cannot be compared: {len(apart)} of {len(self.rows)} jobs")
        return notes

    def is_best(self, row: RankedJob) -> bool:
        """Whether `row` is the best job's. No job is the best if none has a value."""
        return row is self.rows[0] and row.job.estimate(SINGLE.key, self.objective) is not None

    def has(self, statistic: str) -> bool:
        """Whether any job has a value in this statistic."""
        return any(row.job.estimate(statistic, metric) for row in self.rows for metric in self.metrics)

    @property
    def difference_heading(self) -> str:
        return f"{heading(self.objective)} − best"

    def headings(self) -> list[str]:
        parameters, metrics = [p.heading for p in self.parameters], map(heading, self.metrics)
        return ["#", *parameters, *metrics, "NFE forward + vjp", "seconds per image", self.difference_heading]

    def cells(self, rank: int, row: RankedJob) -> list[str]:
        job = row.job
        parameters = [p.text(job) for p in self.parameters]
        means = [self._mean(job, metric) for metric in self.metrics]
        best = "best" if self.is_best(row) else signed_difference(row.difference, spec_of(self.objective))
        return [str(rank), *parameters, *means, nfe(job), number(job.seconds and job.seconds.mean), best]

    def _mean(self, job: FinishedRun, metric: str) -> str:
        found = job.estimate(SINGLE.key, metric)
        return absent(metric, job.summary.get("footnote")) if found is None else plus_minus(found, spec_of(metric))

    def as_table(self, style: str, clean: Callable[[str], str] = str) -> str:
        """The ranked jobs in one of tabulate's styles; `clean` is applied to every text."""
        headings = [clean(text) for text in self.headings()]
        align = ["right", *("left" for _ in self.parameters), *("right" for _ in headings[1 + len(self.parameters) :])]
        rows = [[clean(cell) for cell in self.cells(rank, row)] for rank, row in enumerate(self.rows, 1)]
        return tabulate(rows, headers=headings, tablefmt=style, disable_numparse=True, colalign=align)

    @property
    def text(self) -> str:
        """For the terminal."""
        blocks = [self.as_table("simple")] if self.rows else []
        blocks += ["\n".join(self.footnotes())] if self.footnotes() else []
        for title, reasons in self.unranked().items():
            blocks.append("\n".join([f"{title}:", *(f"  {self.name(job)}: {reason}" for job, reason in reasons)]))
        return "\n\n".join(blocks)

    def unranked(self) -> dict[str, list[tuple[FinishedRun, str]]]:
        """Why jobs have no rank: title → (job, reason), without empty lists."""
        found = {
            "Failed": [(job, job.error) for job in self.failed],
            "Not applicable": [(job, job.not_applicable) for job in self.not_applicable],
        }
        return {title: reasons for title, reasons in found.items() if reasons}


Scores = dict[tuple[str, str], float]


def difference(scores: Scores, best: Scores) -> Estimate | None:
    """The mean of scores − best over the images that both restored from the same measurement; None if there are none."""
    both = sorted(scores.keys() & best.keys())
    return estimate([scores[key] - best[key] for key in both])


def image_scores(job: FinishedRun, metric: str) -> Scores:
    """(image, measurement) → the mean score of its samples. Empty for damaged records, and without the hashes of the measurements."""
    scores = {}
    try:
        images = read_images(job.folder)  # not job.images: a large sweep would keep the records of all its jobs in memory
    except (OSError, ValueError):
        return {}
    for name, image in images.items():
        value, hashes = image.mean(metric), image.measurement_hashes - {None}
        if value is not None and len(hashes) == 1:
            scores[name, hashes.pop()] = value
    return scores


def nfe(job: FinishedRun) -> str:
    return forward_and_vjp(job.cost("nfe_forward"), job.cost("nfe_vjp"))
