"""Two runs compared image by image: python evaluate.py compare=[DIR1,DIR2]."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from diffusion_priors.evaluation.comparison.metric_comparison import HEADINGS, MetricComparison, compare_metric
from diffusion_priors.evaluation.comparison.notes import Pairs, changes, notes
from diffusion_priors.evaluation.reporting.finished_run import FinishedRun, read_run
from diffusion_priors.evaluation.reporting.format import counted
from diffusion_priors.evaluation.reporting.image_records import ImageRecords
from diffusion_priors.evaluation.scores import POSTERIOR_MEAN, SINGLE, Statistic, metric_of
from diffusion_priors.evaluation.statistics import LEVEL
from diffusion_priors.runs.layout import RECORDS, RunLayout


@dataclass(frozen=True)
class Comparison:
    """What the number of `images` that two runs have in common says about them.

    `notes` state what the values do not show, `changes` how the configurations differ: (key, first, second).
    """

    first: FinishedRun
    second: FinishedRun
    images: int
    rows: list[MetricComparison]
    notes: list[str]
    changes: list[tuple[str, str, str]]

    def text(self) -> str:
        """For the terminal."""
        return "\n\n".join(self._blocks("simple", "{}:"))

    def markdown(self) -> str:
        return "\n\n".join(self._blocks("github", "### {}")) + "\n"

    def to_dict(self) -> dict:
        """Numbers, texts, lists and dictionaries, for JSON."""
        metrics: dict[str, dict[str, dict]] = {}
        for row in self.rows:
            metrics.setdefault(row.statistic.key, {})[row.metric.name] = row.to_dict()
        return {
            "first": {"folder": str(self.first.folder), "title": self.first.title},
            "second": {"folder": str(self.second.folder), "title": self.second.title},
            "images": self.images,
            "level": LEVEL,
            "metrics": metrics,
            "notes": self.notes,
            "configuration": {key: [old, new] for key, old, new in self.changes},
        }

    def _blocks(self, style: str, head: str) -> Iterator[str]:
        runs = [f"- {which}: {run.folder} ({run.title})" for which, run in (("first", self.first), ("second", self.second))]
        yield "\n".join([*runs, f"- images in common: {self.images}"])
        align = ("left", *["right"] * (len(HEADINGS) - 1))
        yield tabulate([row.cells() for row in self.rows], HEADINGS, tablefmt=style, disable_numparse=True, colalign=align)
        yield (
            "Won and lost count the images on which the first run is better and worse. Each p-value is for one metric, without "
            "correction for several metrics."
        )
        yield "\n".join(f"- {row.name}: {row.verdict()}" for row in self.rows)
        if self.notes:
            yield f"{head.format('What else differs')}\n\n" + "\n".join(f"- {note}" for note in self.notes)
        if self.changes:
            rows = [[cell.replace("|", "\\|") if style == "github" else cell for cell in change] for change in self.changes]
            table = tabulate(rows, ["", "first", "second"], tablefmt=style, disable_numparse=True)
            yield f"{head.format('Configuration')}\n\n{table}"


def compare(first: Path, second: Path) -> Comparison:
    """Compare two runs on the images that both restored without a failure.

    Raises FileNotFoundError or ValueError, in one line, for a folder that is not a run, is damaged or shares no image.
    """
    if first.resolve() == second.resolve():
        raise ValueError(f"compare=[{first},{second}] names one folder twice; name the output folders of two runs")
    runs = comparable_run(first), comparable_run(second)
    one, two = (run.restored for run in runs)
    names = [name for name in one if name in two]
    if not names:
        counts = " and ".join(f"{counted(len(run.restored), 'image')} (and {len(run.failed)} failed) in {run.folder}" for run in runs)
        raise ValueError(f"no image in common: {counts}; compare runs over the same images")
    pairs = [(one[name], two[name]) for name in names]
    rows = _rows(SINGLE, pairs, lambda image: image.scores)
    rows += _rows(POSTERIOR_MEAN, [pair for pair in pairs if all(image.posterior for image in pair)], lambda image: image.posterior_scores)
    return Comparison(*runs, len(names), rows, notes(*runs, pairs), changes(*runs))


def comparable_run(folder: Path) -> FinishedRun:
    """The run in `folder`, finished or not. Raises FileNotFoundError or ValueError if there is none or it is damaged."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; compare= takes the output folders of two runs")
    run = read_run(folder)
    try:
        images = run.images
    except OSError as error:
        raise ValueError(f"{folder}: {error.strerror or error}; name the output folder of a run that can be read") from error
    if not images and run.not_applicable is not None:
        raise ValueError(f"{folder} holds no results: {run.not_applicable}; name the output folder of another run")
    if not images:
        jobs = sorted(path.parent for path in folder.glob(f"*/{RECORDS}"))
        hint = f"it is the folder of a sweep: name one of its jobs, such as {jobs[0]}" if jobs else "name the output folder of a run"
        raise FileNotFoundError(f"{folder} holds no records; {hint}")
    if run.damage is not None:
        raise ValueError(f"{folder}: {run.damage}; evaluate again")
    if not RunLayout(folder).config.is_file():
        raise FileNotFoundError(f"{RunLayout(folder).config} is missing; evaluate again")
    return run


def _rows(statistic: Statistic, pairs: Pairs, scores: Callable[[ImageRecords], dict[str, float | None]]) -> list[MetricComparison]:
    """A comparison of each metric that both runs have of at least one image."""
    both = [(scores(first), scores(second)) for first, second in pairs]
    rows = []
    for metric in dict.fromkeys(metric for first, _ in both for metric in first):
        row = compare_metric(statistic, metric_of(metric), [(first.get(metric), second.get(metric)) for first, second in both])
        rows += [] if row is None else [row]
    return rows
