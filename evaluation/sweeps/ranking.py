"""The jobs of a sweep in order, best first, and how far each is from the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from diffusion_priors.evaluation.reporting.finished_run import Job
from diffusion_priors.evaluation.reporting.format import form, heading
from diffusion_priors.evaluation.reporting.html import ABSENT, number
from diffusion_priors.evaluation.statistics import Estimate, paired
from diffusion_priors.evaluation.sweeps.parameters import swept_parameters, words

METRICS = ("psnr", "ssim", "lpips")


def gain(metric: str) -> int:
    """1 for a metric that is better when higher, −1 for one that is better when lower."""
    return -1 if heading(metric).endswith("↓") else 1


@dataclass(frozen=True)
class Row:
    """A finished job and, where it can be said, how far it is from the best one: the mean paired difference, job − best."""

    job: Job
    difference: Estimate | None

    @property
    def is_tied(self) -> bool:
        """Whether 0 lies in the interval of the difference."""
        return self.difference is not None and self.difference.low is not None and self.difference.low <= 0 <= self.difference.high


class Leaderboard:
    """The finished jobs under `root` by the mean of `objective`, those without a value for it after them; the failed ones apart.

    Raises ValueError where there is no job, or none that knows the objective.
    """

    def __init__(self, root: Path, jobs: Sequence[Job], objective: str = "psnr") -> None:
        done = [job for job in jobs if job.summary]
        known = list(dict.fromkeys((*METRICS, *(metric for job in done for metric in job.summary["metrics"]))))
        if not jobs:
            raise ValueError(f"{root} holds no job; give the folder of a sweep")
        if objective not in known:
            raise ValueError(f"objective={objective} is unknown; set objective to one of {', '.join(known)}")
        self.root, self.objective = root, objective
        self.jobs, self.metrics = list(jobs), known
        self.parameters = swept_parameters(jobs)
        self.failed = [job for job in jobs if job.error is not None]
        ranked = sorted(done, key=self._rank)
        best = image_scores(ranked[0], objective) if ranked else {}
        self.rows = [Row(job, None if job is ranked[0] else difference(image_scores(job, objective), best)) for job in ranked]

    def _rank(self, job: Job) -> tuple:
        found = job.estimate("single", self.objective)
        return (1, 0.0, self.name(job)) if found is None else (0, -gain(self.objective) * found.mean, self.name(job))

    def name(self, job: Job) -> str:
        return job.folder.relative_to(self.root).as_posix()

    def title(self, job: Job) -> str:
        """What tells a job apart: its parameters, or its folder where nothing was varied."""
        return words(self.parameters, job) or self.name(job)

    def footnotes(self) -> list[str]:
        """Why figures are missing or not to be trusted, each once."""
        notes = [f"* {note}" for note in dict.fromkeys(row.job.summary["footnote"] for row in self.rows) if note]
        for row in self.rows:
            if row.job.summary["failed"]:
                notes.append(f"{self.title(row.job)}: {row.job.summary['failed']} of {row.job.summary['records']} restorations failed")
        return notes + self._comparability()

    def _comparability(self) -> list[str]:
        """Which jobs are as good as the best for all that is known, and which do not compare with it."""
        tied = [self.title(row.job) for row in self.rows if row.is_tied]
        apart = [row for row in self.rows[1:] if row.difference is None and row.job.estimate("single", self.objective)]
        notes = []
        if tied:
            notes.append(f"Not told apart from the best, as 0 lies in the 95 % interval of the paired difference: {'; '.join(tied)}")
        if apart:
            notes.append(f"No measurement in common with the best, so that the means do not compare: {len(apart)} of {len(self.rows)} jobs")
        return notes

    def is_best(self, row: Row) -> bool:
        """Whether `row` is the best job's; none is where no job has a value."""
        return row is self.rows[0] and row.job.estimate("single", self.objective) is not None

    def has(self, block: str) -> bool:
        """Whether any job has a figure in `block` of its statistics."""
        return any(row.job.estimate(block, metric) for row in self.rows for metric in self.metrics)

    def headings(self) -> list[str]:
        figures = [heading(metric) for metric in self.metrics]
        return ["#", *(p.heading for p in self.parameters), *figures, "NFE forward + vjp", "seconds an image", self.difference_heading]

    @property
    def difference_heading(self) -> str:
        return f"{heading(self.objective)} − best"

    def cells(self, rank: int, row: Row) -> list[str]:
        job = row.job
        parameters = [p.text(job) for p in self.parameters]
        figures = [self._figure(job, metric) for metric in self.metrics]
        best = "best" if self.is_best(row) else _interval(row.difference, form(self.objective))
        return [str(rank), *parameters, *figures, nfe(job), number(job.seconds and job.seconds.mean), best]

    def _figure(self, job: Job, metric: str) -> str:
        found = job.estimate("single", metric)
        if found is None and metric.startswith("lpips") and job.summary["footnote"]:
            return f"{ABSENT} *"
        return plus_minus(found, form(metric))

    def table(self, style: str, clean: Callable[[str], str] = str) -> str:
        """The ranked jobs as tabulate's `style` writes them, `clean` applied to every text."""
        headings = [clean(text) for text in self.headings()]
        align = ["right", *("left" for _ in self.parameters), *("right" for _ in headings[1 + len(self.parameters) :])]
        rows = [[clean(cell) for cell in self.cells(rank, row)] for rank, row in enumerate(self.rows, 1)]
        return tabulate(rows, headers=headings, tablefmt=style, disable_numparse=True, colalign=align)

    @property
    def text(self) -> str:
        """For the terminal."""
        parts = [self.table("simple")] if self.rows else []
        parts += ["\n".join(self.footnotes())] if self.footnotes() else []
        parts += ["Failed:\n" + "\n".join(f"  {self.name(job)}: {job.error}" for job in self.failed)] if self.failed else []
        return "\n\n".join(parts)


Scores = dict[tuple[str, str], float]


def difference(scores: Scores, best: Scores) -> Estimate | None:
    """The mean of scores − best over the images that both have from the same measurement; None where there are none."""
    both = sorted(scores.keys() & best.keys())
    found = paired([scores[key] for key in both], [best[key] for key in both])
    return found and found.estimate


def image_scores(job: Job, metric: str) -> Scores:
    """(image, measurement) → the mean of its samples' scores. Nothing where no measurement is named."""
    values: dict[tuple[str, str], list[float]] = {}
    for record in job.records():
        if record.get(metric) is not None and record.get("measurement_hash"):
            values.setdefault((record["id"], record["measurement_hash"]), []).append(record[metric])
    return {key: sum(scores) / len(scores) for key, scores in values.items()}


def plus_minus(found: Estimate | None, spec: str) -> str:
    """mean ± standard error, a dash for none."""
    if found is None:
        return ABSENT
    return number(found.mean, spec) if found.se is None else f"{number(found.mean, spec)} ± {number(found.se, spec)}"


def _interval(found: Estimate | None, spec: str) -> str:
    """mean [low, high], blank for none."""
    if found is None:
        return ""
    mean = number(found.mean, f"+{spec}")
    return mean if found.low is None else f"{mean} [{number(found.low, f'+{spec}')}, {number(found.high, f'+{spec}')}]"


def nfe(job: Job) -> str:
    return f"{number(job.cost('nfe_forward'), '.0f')} + {number(job.cost('nfe_vjp'), '.0f')}"
