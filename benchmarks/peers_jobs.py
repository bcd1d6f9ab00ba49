"""The jobs of benchmarks/peers_quality.py, and which setting of a cell is the best one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path

from peers_settings import EXTRAS, OURS, SIDES, THEIRS, TUNED_ON

BATCH = 4
"""Images restored together, and images that the settings are chosen on."""


@dataclass(frozen=True)
class Cell:
    """One method of one side on one task."""

    task: str
    side: str
    method: str

    @property
    def settings(self) -> list[str]:
        return list({"ours": OURS | EXTRAS, "deepinv": THEIRS}[self.side][self.method])


@dataclass(frozen=True)
class Job:
    """One batch of a cell with one setting; `first` is the number of the batch's first image."""

    cell: Cell
    stage: str
    setting: str
    first: int

    def path(self, output: Path) -> Path:
        number = self.cell.settings.index(self.setting)
        return output / "results" / f"{self.stage}-{self.cell.task}-{self.cell.side}-{self.cell.method}-{number}-{self.first:02d}.json"


def jobs(output: Path, count: int, tasks: Sequence[str], methods: Sequence[str]) -> Iterator[Job | None]:
    """What is to be done, in order; None where the settings of a cell are not all tried yet."""
    rows = {method: [(side, method) for side in SIDES if side == "ours" or method in THEIRS] for method in methods}
    every = [row for sides in rows.values() for row in sides]
    for sides in rows.values():
        yield from tuning(tasks, sides)
        yield from tests(output, [task for task in tasks if task == TUNED_ON[task]], sides, range(0, min(count, BATCH), BATCH))
    yield from tests(output, tasks, every, range(0, count, BATCH))


def tuning(tasks: Sequence[str], rows: Sequence[tuple[str, str]]) -> Iterator[Job]:
    """Every setting of every row, where there is a choice."""
    for side, method in rows:
        for task in sorted({TUNED_ON[task] for task in tasks}):
            cell = Cell(task, side, method)
            yield from (Job(cell, "tune", setting, 0) for setting in cell.settings if len(cell.settings) > 1)


def tests(output: Path, tasks: Sequence[str], rows: Sequence[tuple[str, str]], batches: Iterable[int]) -> Iterator[Job | None]:
    """The best setting of every row on every task, the first batch of all rows before the second one."""
    for first in batches:
        for side, method in rows:
            for task in tasks:
                cell = Cell(task, side, method)
                setting = best_setting(output, cell)
                yield None if setting is None else Job(cell, "test", setting, first)


def best_setting(output: Path, cell: Cell) -> str | None:
    """The setting with the largest mean PSNR − 100 LPIPS on the tuning images; None where one of them is not tried yet."""
    cell = replace(cell, task=TUNED_ON[cell.task])
    if len(cell.settings) == 1:
        return cell.settings[0]
    paths = {setting: Job(cell, "tune", setting, 0).path(output) for setting in cell.settings}
    if not all(path.exists() for path in paths.values()):
        return None
    tried = {setting: json.loads(path.read_text()) for setting, path in paths.items()}
    return max(tried, key=lambda setting: merit(tried[setting]))


def merit(result: dict) -> float:
    """Mean PSNR − 100 LPIPS: 0.01 of LPIPS counts as 1 dB. PSNR alone where LPIPS has no value."""
    lpips = mean(result["lpips"])
    return mean(result["psnr"]) - (0.0 if isnan(lpips) else 100.0 * lpips)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
