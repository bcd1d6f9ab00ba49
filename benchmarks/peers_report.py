"""The tables of benchmarks/peers_quality.py, from the results that are there."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from peers_jobs import Cell, best_setting
from peers_settings import EXTRAS, KARRAS, SIDES, TASKS, THEIRS
from tabulate import tabulate

from diffusion_priors.evaluation.statistics import paired
from diffusion_priors.runs.files import write_whole

NAMES = dict(zip(SIDES, ("DeepInverse", "this project"), strict=True))
SCORES = {"psnr": (2, max), "ssim": (3, max), "lpips": (4, min)}
"""Score → its decimals, and which of two values is better."""
COLUMNS = ["stage", "task", "side", "method", "setting", "image", "psnr", "ssim", "lpips", "forwards", "vjps", "seconds"]


@dataclass(frozen=True)
class Row:
    """The test images of one method of one side on one task: their scores by id, and what an image costs."""

    task: str
    side: str
    method: str
    setting: str
    scores: dict[str, dict[str, float]]
    forwards: float
    vjps: float

    @property
    def name(self) -> str:
        return f"{self.method}, {NAMES[self.side]}"

    def mean(self, score: str, ids: Iterable[str] | None = None) -> float:
        values = [self.scores[score][name] for name in (self.scores[score] if ids is None else ids)]
        return sum(values) / len(values)


def read(output: Path) -> list[dict]:
    """All results, in the order of their names."""
    return [json.loads(path.read_text()) for path in sorted((output / "results").glob("*.json"))]


def rows_of(output: Path, results: list[dict]) -> list[Row]:
    """The tested rows with the setting that the tuning chose, in the order of the settings."""
    groups: dict[tuple[str, str, str, str], list[dict]] = {}
    for result in results:
        if result["stage"] == "test" and result["setting"] == best_setting(output, Cell(**result["cell"])):
            groups.setdefault((*(result["cell"][key] for key in ("task", "side", "method")), result["setting"]), []).append(result)
    place = {name: number for number, name in enumerate([*TASKS, *THEIRS, *EXTRAS, *SIDES])}
    return [_row(key, groups[key]) for key in sorted(groups, key=lambda key: [place[name] for name in (key[0], key[2], key[1])])]


def _row(key: tuple[str, str, str, str], batches: list[dict]) -> Row:
    scores = {score: {name: value for batch in batches for name, value in zip(batch["ids"], batch[score], strict=True)} for score in SCORES}
    return Row(*key, scores, *(sum(batch[call] for batch in batches) / len(batches) for call in ("forwards", "vjps")))


def difference(first: Row, second: Row, score: str) -> str:
    """first − second, with the 95 % interval, over the images that both have."""
    ids = sorted(first.scores[score].keys() & second.scores[score].keys())
    found = paired(*([row.scores[score][name] for name in ids] for row in (first, second)))
    if found is None:
        return "none"
    digits, estimate = SCORES[score][0], found.estimate
    interval = "" if estimate.low is None else f" [{estimate.low:+.{digits}f}, {estimate.high:+.{digits}f}]"
    return f"{estimate.mean:+.{digits}f}{interval}"


def values(row: Row) -> str:
    return f"{row.mean('psnr'):.2f}, {row.mean('lpips'):.4f}"


def by_method(rows: Sequence[Row], task: str) -> str:
    """Both sides of each method on a task."""
    table = []
    for method in dict.fromkeys(row.method for row in rows):
        sides = {row.side: row for row in rows if (row.task, row.method) == (task, method)}
        theirs, ours = sides.get("deepinv"), sides.get("ours")
        pair = [difference(ours, theirs, score) for score in ("psnr", "lpips")] if theirs and ours else ["", ""]
        if sides:
            images = min(len(row.scores["psnr"]) for row in sides.values())
            table.append([f"`{method}`", images, *("" if row is None else values(row) for row in (theirs, ours)), *pair])
    heads = ["method", "images", "DeepInverse: PSNR, LPIPS", "this project", "PSNR, difference", "LPIPS, difference"]
    return _markdown(table, heads)


def best_of(rows: Sequence[Row], side: str, score: str, ids: set[str]) -> Row | None:
    """The row of a side with the best mean over `ids`."""
    complete = [row for row in rows if row.side == side and ids <= row.scores[score].keys()]
    return SCORES[score][1](complete, key=lambda row: row.mean(score, ids), default=None)


def best(rows: Sequence[Row]) -> str:
    """The best of each side on each task, by each score, over the images that most rows of the task have."""
    table = []
    for task in dict.fromkeys(row.task for row in rows):
        here = [row for row in rows if row.task == task]
        for score in ("psnr", "lpips"):
            ids = set.intersection(*(set(row.scores[score]) for row in here))
            theirs, ours = (best_of(here, side, score, ids) for side in SIDES)
            if theirs and ours and ids:
                digits = SCORES[score][0]
                shown = [f"`{row.method}` {row.mean(score, ids):.{digits}f}" for row in (theirs, ours)]
                table.append([task, score.upper(), len(ids), *shown, difference(ours, theirs, score)])
    heads = ["task", "score", "images", "best of DeepInverse", "best of this project", "difference"]
    return _markdown(table, heads)


def chosen(rows: Sequence[Row]) -> str:
    """The settings that were chosen, and the network evaluations of an image."""
    table = []
    for row in rows:
        setting = row.setting.replace(KARRAS, "KARRAS").removeprefix(f"solver={row.method} ")
        table.append([row.task, f"`{row.method}`", NAMES[row.side], f"`{setting}`", f"{row.forwards:.0f} + {row.vjps:.0f}"])
    return _markdown(table, ["task", "method", "side", "setting", "NFE forward + vjp"])


def _markdown(table: list[list], heads: list[str]) -> str:
    return tabulate(table, heads, tablefmt="pipe", disable_numparse=True)


def as_csv(results: list[dict]) -> str:
    """One line for each image of each result, those of the tuning included."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for result in results:
        for number, name in enumerate(result["ids"]):
            scores = {score: result[score][number] for score in SCORES}
            writer.writerow(result | result["cell"] | scores | {"image": name})
    return text.getvalue()


def report(output: Path) -> str:
    """The tables as Markdown; the CSV goes to `output`."""
    results = read(output)
    rows = rows_of(output, results)
    text = as_csv(results)
    write_whole(output / "scores.csv", lambda stream: stream.write(text.encode()))
    tasks = dict.fromkeys(row.task for row in rows)
    sections = [f"### {task}\n\n{by_method(rows, task)}" for task in tasks]
    settings = f"### Settings\n\n{chosen(rows)}\n\nKARRAS stands for `{KARRAS}`."
    return "\n\n".join([*sections, f"### The best of each side\n\n{best(rows)}", settings])
