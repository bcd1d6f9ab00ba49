"""Two runs compared image by image: python evaluate.py compare=[DIR1,DIR2]."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import floor, log10
from pathlib import Path

import numpy as np
from tabulate import tabulate

from diffusion_priors.evaluation.comparison.compared_run import Run, read_run
from diffusion_priors.evaluation.comparison.notes import changes, notes
from diffusion_priors.evaluation.reporting.format import FORMS
from diffusion_priors.evaluation.statistics import LEVEL, Difference, Estimate, estimate, paired

WRITTEN = FORMS | {"residual": ("residual", ".4f"), "deviation": ("deviation", ".4f"), "seconds": ("seconds an image ↓", ".2f")}
"""How metrics are headed and their figures written. An arrow says which way is better: a residual should come near sigma_y, not near 0."""

UNITS = {"psnr": " dB", "seconds": " s"}
SECTIONS = {"single": "", "posterior_mean": "posterior mean: "}
INTERVAL = f"{100 * LEVEL:.0f} % interval"
ABSENT = "–"


@dataclass(frozen=True)
class Row:
    """One metric over the images of which both runs have a value: means, difference first − second, images won, lost, tied.

    `section` is "single" (the mean over an image's samples) or "posterior_mean". `higher` and `lower` count the
    images on which the first run's value is.
    """

    section: str
    metric: str
    first: Estimate
    second: Estimate
    difference: Difference
    higher: int
    lower: int
    tied: int

    @property
    def name(self) -> str:
        return SECTIONS[self.section] + WRITTEN.get(self.metric, (self.metric,))[0]

    @property
    def better(self) -> int:
        """1 where higher is better, −1 where lower is, 0 where neither."""
        return {"↑": 1, "↓": -1}.get(self.name[-1], 0)

    @property
    def won_lost(self) -> tuple[int, int] | tuple[None, None]:
        """Images on which the first run is better, and worse; None where neither direction is."""
        return {1: (self.higher, self.lower), -1: (self.lower, self.higher), 0: (None, None)}[self.better]

    def plain(self) -> dict:
        won, lost = self.won_lost
        means = {"first": self.first.plain(), "second": self.second.plain(), "difference": self.difference.plain()}
        return means | {"higher": self.higher, "lower": self.lower, "tied": self.tied, "won": won, "lost": lost, "words": self.words()}

    def words(self) -> str:
        """What the difference says, in a sentence."""
        found, p, places = self.difference.estimate, self.difference.t_test, self._places()
        if self.tied == found.n:
            return "the same on every image"
        ahead = "first" if (found.mean > 0) == (self.better >= 0) else "second"
        unit = UNITS.get(self.metric, "")
        verdict = f"{ahead} is {'better' if self.better else 'higher'} by {written(abs(found.mean), places)}{unit}"
        if found.n == 1:
            return f"{verdict} on the one image there is, which says nothing of others"
        if p is None:
            return f"{verdict} on every image alike"
        if found.low <= 0 <= found.high:
            ends = f"{written(found.low, places)} to {written(found.high, places)}"
            return f"no difference larger than chance ({written(found.mean, places)}{unit}, {INTERVAL} {ends}, {p_value(p)})"
        low, high = sorted((abs(found.low), abs(found.high)))
        return f"{verdict} ({INTERVAL} {written(low, places)} to {written(high, places)}, {p_value(p)})"

    def cells(self) -> list[str]:
        found, places = self.difference.estimate, self._places()
        means = [written(value, places) for value in (self.first.mean, self.second.mean, found.mean)]
        interval = ABSENT if found.low is None else f"{written(found.low, places)} to {written(found.high, places)}"
        tests = [
            ABSENT if p is None else p_value(p).removeprefix("p ").removeprefix("= ")
            for p in (self.difference.t_test, self.difference.wilcoxon)
        ]
        counts = [ABSENT if count is None else str(count) for count in (*self.won_lost, self.tied, found.n)]
        return [self.name, *means, interval, *tests, *counts]

    def _places(self) -> int:
        """Decimals: as the metric is always written, or as many as show two digits of the interval's half width."""
        found = self.difference.estimate
        usual = int(WRITTEN.get(self.metric, ("", ".3f"))[1][1])
        scale = abs(found.mean) if self.difference.t_test is None else found.high - found.mean
        return min(8, max(usual, 1 - floor(log10(scale)))) if scale else usual


@dataclass(frozen=True)
class Comparison:
    """What the `images` that two runs have in common say of them.

    `notes` tell what the figures alone would hide, `changes` how the configurations differ: (key, first, second).
    """

    first: Run
    second: Run
    images: int
    rows: list[Row]
    notes: list[str]
    changes: list[tuple[str, str, str]]

    def text(self) -> str:
        """For the terminal."""
        return "\n\n".join(self._parts("simple", "{}:"))

    def markdown(self) -> str:
        return "\n\n".join(self._parts("github", "### {}")) + "\n"

    def plain(self) -> dict:
        """Numbers, texts, lists and dictionaries, as JSON holds them."""
        sections = {section: {row.metric: row.plain() for row in self.rows if row.section == section} for section in SECTIONS}
        return {
            "first": {"folder": str(self.first.root), "title": self.first.title},
            "second": {"folder": str(self.second.root), "title": self.second.title},
            "images": self.images,
            "level": LEVEL,
            "metrics": {section: rows for section, rows in sections.items() if rows},
            "notes": self.notes,
            "configuration": {key: [old, new] for key, old, new in self.changes},
        }

    def _parts(self, style: str, head: str) -> Iterator[str]:
        runs = [f"- {which}: {run.root} ({run.title})" for which, run in (("first", self.first), ("second", self.second))]
        yield "\n".join([*runs, f"- images in common: {self.images}"])
        headers = ["", "first", "second", "first − second", INTERVAL, "p (t-test)", "p (Wilcoxon)", "won", "lost", "tied", "images"]
        align = ("left", *["right"] * (len(headers) - 1))
        yield tabulate([row.cells() for row in self.rows], headers, tablefmt=style, disable_numparse=True, colalign=align)
        yield "Won and lost are images on which the first run is better and worse. Each p-value is of its metric alone."
        yield "\n".join(f"- {row.name}: {row.words()}" for row in self.rows)
        if self.notes:
            yield f"{head.format('What else differs')}\n\n" + "\n".join(f"- {note}" for note in self.notes)
        if self.changes:
            rows = [[cell.replace("|", "\\|") if style == "github" else cell for cell in change] for change in self.changes]
            table = tabulate(rows, ["", "first", "second"], tablefmt=style, disable_numparse=True)
            yield f"{head.format('Configuration')}\n\n{table}"


def compare(first: Path, second: Path) -> Comparison:
    """Compare two output folders of evaluate.py on the images that both have restored without a failure.

    Raises FileNotFoundError or ValueError, in one line, for folders that are no runs, are damaged or share no image.
    """
    if first.resolve() == second.resolve():
        raise ValueError(f"compare=[{first},{second}] is one folder; name the output folders of two runs")
    a, b = read_run(first), read_run(second)
    names = [name for name in a.records if name in b.records]
    if not names:
        counts = " and ".join(f"{len(run.records)} images (besides {len(run.failed)} failed) in {run.root}" for run in (a, b))
        raise ValueError(f"no image in common: there are {counts}; compare runs over the same images")
    rows = _rows("single", a.single, b.single) + _rows("posterior_mean", a.posterior_mean, b.posterior_mean)
    return Comparison(a, b, len(names), rows, notes(a, b, names), changes(a, b))


def _rows(section: str, first: dict[str, dict], second: dict[str, dict]) -> list[Row]:
    """A row for each metric of which both have a value on one image at least."""
    names = [name for name in first if name in second]
    rows = []
    for metric in dict.fromkeys(metric for name in names for metric in first[name]):
        pairs = [(first[name].get(metric), second[name].get(metric)) for name in names]
        pairs = [pair for pair in pairs if None not in pair and np.isfinite(pair).all()]
        if pairs:
            a, b = zip(*pairs, strict=True)
            signs = np.sign(np.subtract(a, b)).tolist()
            rows.append(Row(section, metric, estimate(a), estimate(b), paired(a, b), signs.count(1), signs.count(-1), signs.count(0)))
    return rows


def written(value: float, places: int) -> str:
    """A number with so many decimals and a true minus sign, never −0."""
    return f"{round(value, places) + 0.0:.{places}f}".replace("-", "−")


def p_value(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"
