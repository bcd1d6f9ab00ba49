"""Tables in the layout of a paper, from the jobs of a sweep: <name>.csv, .md and .tex, and the figure <name>.png."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from diffusion_priors.evaluation.reporting.figure import draw_figure
from diffusion_priors.evaluation.reporting.finished_run import FinishedRun
from diffusion_priors.evaluation.reporting.format import heading, number, plus_minus, spec_of
from diffusion_priors.evaluation.scores import MEASUREMENT, SINGLE, Statistic, explains, metric_of
from diffusion_priors.evaluation.statistics import Estimate
from diffusion_priors.evaluation.sweeps.latex import latex
from diffusion_priors.evaluation.sweeps.paper_figure import Denoising, Layout, Restorations, Samples
from diffusion_priors.runs.files import write_whole

__all__ = ["Denoising", "Layout", "PaperTable", "Restorations", "Samples"]


@dataclass(frozen=True)
class TableRow:
    """`cells` holds an estimate per column, `missing` why a cell is None, and `note` a remark on the whole row.

    `is_method` is False for the row that scores the measurements.
    """

    label: str
    cells: tuple[Estimate | None, ...]
    missing: tuple[str | None, ...]
    note: str | None = None
    is_method: bool = True


@dataclass(frozen=True)
class NumberedTexts:
    """Rows of (text, number of its note); the notes are numbered from 1 in order of appearance."""

    rows: list[list[tuple[str, int | None]]]
    notes: list[str]


class PaperTable:
    """A row per job and a column per metric of `columns`, with mean ± standard error over the images.

    Each job sets its label as `row` and its position as `place`; without a label the row is named by the folder. With
    `measurement`, the first row scores the measurements, if all jobs restored the same ones. `figure` arranges the
    results for the image with the id `image`; None: the first that all jobs have. Without columns there is only the figure.
    """

    def __init__(
        self,
        name: str,
        caption: str = "",
        heading: str = "Method",
        columns: tuple[str, ...] = ("psnr", "lpips"),
        measurement: bool = False,
        image: str | None = None,
        figure: Layout | None = None,
        row: str = "",
        place: int = 0,
    ) -> None:
        self.name, self.caption, self.heading, self.columns = name, caption, heading, tuple(columns)
        self.measurement, self.image, self.figure = measurement, image, figure
        self.row, self.place = row, place

    def write(self, root: Path, jobs: Sequence[FinishedRun]) -> str:
        """Write the files into `root`; → the text for the terminal. Raises ValueError if no job restored `image`."""
        named = [(_label(job), job) for job in sorted(jobs, key=_order)]
        drawn = self._draw(root, [(label, job) for label, job in named if job.summary is not None])
        blocks = [self.caption] if self.caption else []
        if self.columns:
            rows = self._rows(named)
            ending = counted(rows, jobs)
            _write(root / f"{self.name}.csv", self.csv(rows))
            _write(root / f"{self.name}.md", self.markdown(rows, ending, drawn))
            _write(root / f"{self.name}.tex", self.tex(rows, ending))
            table, notes = self._texts(rows, ending, "simple", str)
            blocks += [table, "\n".join(notes)]
        return "\n\n".join([*blocks, *([f"images: {root / f'{self.name}.png'}"] if drawn else [])])

    def _draw(self, root: Path, named: Sequence[tuple[str, FinishedRun]]) -> bool:
        tiles = self.figure.rows(named, self.image) if self.figure else []
        if tiles:
            image = draw_figure(tiles, self.caption or self.name)
            write_whole(root / f"{self.name}.png", lambda stream: image.save(stream, "PNG"))
        return bool(tiles)

    def _rows(self, named: Sequence[tuple[str, FinishedRun]]) -> list[TableRow]:
        rows = [self._row(label, SINGLE, job) for label, job in named]
        done = [job for _, job in named if job.summary]
        if self.measurement and done and done[0].measurements and len({job.measurements for job in done}) == 1:
            return [self._row("Measurement", MEASUREMENT, done[0]), *rows]
        return rows

    def _row(self, label: str, statistic: Statistic, job: FinishedRun) -> TableRow:
        cells = tuple(job.estimate(statistic.key, column) for column in self.columns)
        missing = tuple(None if cell else _why_missing(job, column) for cell, column in zip(cells, self.columns, strict=True))
        note = None
        if statistic is SINGLE and job.summary and job.summary["failed"] and any(cells):
            note = f"{job.summary['failed']} of {job.summary['records']} restorations failed; the values are those of the others"
        return TableRow(label, cells, missing, note, statistic is SINGLE)

    def csv(self, rows: Sequence[TableRow]) -> str:
        """All digits: mean, standard error and number of images of each column."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([self.heading, *(f"{column}{ending}" for column in self.columns for ending in ("", "_se", "_n")), "note"])
        for row in rows:
            values = [(cell.mean, cell.se, cell.n) if cell else ("", "", "") for cell in row.cells]
            notes = dict.fromkeys(note for note in (row.note, *row.missing) if note)
            writer.writerow([row.label, *(value for three in values for value in three), "; ".join(notes)])
        return stream.getvalue()

    def numbered(self, rows: Sequence[TableRow]) -> NumberedTexts:
        """Labels and cells as texts with the numbers of their notes."""
        numbers: dict[str, int] = {}

        def mark(text: str, note: str | None) -> tuple[str, int | None]:
            return text, numbers.setdefault(note, len(numbers) + 1) if note else None

        specs = [spec_of(column) for column in self.columns]
        texts = [
            [mark(row.label, row.note), *(mark(plus_minus(*cell), why) for *cell, why in zip(row.cells, specs, row.missing, strict=True))]
            for row in rows
        ]
        return NumberedTexts(texts, list(numbers))

    def _texts(self, rows: Sequence[TableRow], ending: str, style: str, clean: Callable[[str], str]) -> tuple[str, list[str]]:
        """The table, and its notes followed by `ending`; `clean` is applied to every text."""
        numbered = self.numbered(rows)
        cells = [[clean(text) + (f" [{number}]" if number else "") for text, number in row] for row in numbered.rows]
        headers = [clean(text) for text in (self.heading, *map(heading, self.columns))]
        align = ["left", *("right" for _ in self.columns)]
        table = tabulate(cells, headers=headers, tablefmt=style, disable_numparse=True, colalign=align if rows else None)
        return table, [*(f"[{number}] {clean(note)}" for number, note in enumerate(numbered.notes, 1)), ending]

    def markdown(self, rows: Sequence[TableRow], ending: str, drawn: bool) -> str:
        def clean(text: str) -> str:
            return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("_", "\\_").replace("<", "&lt;")

        blocks = [f"**{clean(self.caption)}**"] if self.caption else []
        table, notes = self._texts(rows, ending, "pipe", clean)
        blocks += [table, *notes]
        return "\n\n".join([*blocks, *([f"![{clean(self.caption)}]({self.name}.png)"] if drawn else [])]) + "\n"

    def best(self, rows: Sequence[TableRow]) -> set[tuple[int, int]]:
        """(row, column) of the best methods by each metric with a known direction: those that print the best mean, unless all do."""
        found = set()
        for j, column in enumerate(self.columns):
            metric = metric_of(column)
            values = {i: row.cells[j].mean for i, row in enumerate(rows) if row.is_method and row.cells[j] is not None}
            if metric.higher_is_better is not None and values:
                first = number(max(values.values(), key=lambda value: metric.gain * value), metric.spec)
                ahead = {(i, j) for i, value in values.items() if number(value, metric.spec) == first}
                found |= ahead if len(ahead) < len(values) else set()
        return found

    def tex(self, rows: Sequence[TableRow], ending: str) -> str:
        """A table with the rules of booktabs; the best method of each column is bold. The notes and the number of images are below it."""
        numbered = self.numbered(rows)
        best = self.best(rows)

        def cell(i: int, j: int, text: str, number: int | None) -> str:
            shown = rf"\textbf{{{latex(text)}}}" if (i, j - 1) in best else latex(text)
            return shown + (f"$^{{{number}}}$" if number else "")

        body = [" & ".join(cell(i, j, *texts) for j, texts in enumerate(row)) + r" \\" for i, row in enumerate(numbered.rows)]
        notes = [f"$^{{{number}}}$~{latex(note)}" for number, note in enumerate(numbered.notes, 1)]
        head = " & ".join(latex(text) for text in (self.heading, *map(heading, self.columns))) + r" \\"
        lines = [
            r"\begin{table}[t]",
            r"  \centering",
            rf"  \caption{{{latex(self.caption)}}}",
            rf"  \label{{tab:{self.name}}}",
            rf"  \begin{{tabular}}{{l{'c' * len(self.columns)}}}",
            *(f"    {line}" for line in (r"\toprule", head, r"\midrule", *body, r"\bottomrule")),
            r"  \end{tabular}",
            *(rf"  \par\smallskip{{\footnotesize {line}\par}}" for line in (*notes, latex(ending))),
            r"\end{table}",
        ]
        return "% needs \\usepackage{booktabs}\n" + "\n".join(lines) + "\n"


def counted(rows: Sequence[TableRow], jobs: Sequence[FinishedRun]) -> str:
    """The line below the notes: "49 images, ± standard error"."""
    counts = sorted({job.summary["images"] for job in jobs if job.summary}) or [0]
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    error = ", ± standard error" if any(cell and cell.se is not None for row in rows for cell in row.cells) else ""
    return f"{number} image{'' if number == '1' else 's'}{error}"


def _order(job: FinishedRun) -> tuple:
    """By place; jobs that failed before they had one come last."""
    place = job.config.get("table.place")
    return (place is None, place or 0, job.folder)


def _label(job: FinishedRun) -> str:
    return str(job.config.get("table.row") or job.folder.name)


def _why_missing(job: FinishedRun, column: str) -> str:
    if job.not_applicable is not None:
        return f"not applicable: {job.not_applicable}"
    if job.summary is None:
        return f"failed: {job.error}"
    if explains(job.summary.get("footnote"), column):
        return job.summary["footnote"]
    return "no image has a value" if job.summary["failed"] < job.summary["records"] else "every restoration failed"


def _write(path: Path, text: str) -> None:
    write_whole(path, lambda stream: stream.write(text.encode()))
