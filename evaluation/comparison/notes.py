"""What the figures of a comparison hide: how the two runs differ besides their results."""

from __future__ import annotations

import filecmp
import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from diffusion_priors.evaluation.comparison.compared_run import Run
from diffusion_priors.runs.config import flat

IGNORED = ("output_dir", "overwrite")
"""Configuration keys that tell nothing of a run."""


def notes(first: Run, second: Run, names: Sequence[str]) -> list[str]:
    """A sentence for each thing that sets the runs apart; `names` are the images they have in common."""
    return [
        *_unfinished(first, "first"),
        *_unfinished(second, "second"),
        *_alone(first, second, "first"),
        *_alone(second, first, "second"),
        *_truths(first, second, names),
        *_measurements(first, second, names),
        *_seeds(first, second, names),
        *_samples(first, second, names),
        *_metrics(first, second, names),
        *_times(first, second, names),
    ]


def changes(first: Run, second: Run) -> list[tuple[str, str, str]]:
    """What was chosen and set otherwise, as (key, first, second); the choice of a group stands before what it holds."""
    old, new = _settings(first), _settings(second)
    keys = [key for key in sorted(old | new) if key not in old or key not in new or old[key] != new[key]]
    return [(key, *(_written(side[key]) if key in side else "–" for side in (old, new))) for key in keys]


def _unfinished(run: Run, which: str) -> list[str]:
    found = []
    if run.summary is None or not run.summary.get("complete"):
        found.append(f"the {which} run is not finished: only the images it got to can be compared")
    if (run.root / "error.txt").is_file():
        found.append(f"the {which} run ended in an error, see {run.root / 'error.txt'}")
    if run.failed:
        found.append(f"{_some(run.failed)} failed in the {which} run: left out of both")
    return found


def _alone(run: Run, other: Run, which: str) -> list[str]:
    alone = [name for name in [*run.records, *run.failed] if name not in other.records and name not in other.failed]
    return [f"{_some(alone)} only in the {which} run: left out"] if alone else []


def _truths(first: Run, second: Run, names: Sequence[str]) -> list[str]:
    pairs = {name: [run.root / "images" / name / "truth.png" for run in (first, second)] for name in names}
    other = [name for name, pair in pairs.items() if all(path.is_file() for path in pair) and not _same_image(*pair)]
    if not other:
        return []
    return [f"the truth differs for {_some(other)}: these are other images of that name, or other sizes, and cannot be compared"]


def _same_image(first: Path, second: Path) -> bool:
    if filecmp.cmp(first, second, shallow=False):
        return True
    try:
        with Image.open(first) as a, Image.open(second) as b:
            return a.size == b.size and a.convert("RGB").tobytes() == b.convert("RGB").tobytes()
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{first} or {second} is damaged: {error}; evaluate again") from error


def _measurements(first: Run, second: Run, names: Sequence[str]) -> list[str]:
    def seen(run: Run, name: str) -> set[str | None]:
        return {record.get("measurement_hash") for record in run.records[name]}

    other = [name for name in names if seen(first, name) != seen(second, name)]
    if not other:
        return []
    return [f"the measurement differs for {_some(other)} of {len(names)}: the differences are partly those of the measurements"]


def _seeds(first: Run, second: Run, names: Sequence[str]) -> list[str]:
    old, new = ({str(record.get("seed")) for name in names for record in run.records[name]} for run in (first, second))
    return [] if old == new else [f"the seeds differ: {', '.join(sorted(old))} in the first run, {', '.join(sorted(new))} in the second"]


def _samples(first: Run, second: Run, names: Sequence[str]) -> list[str]:
    other = [name for name in names if len(first.records[name]) != len(second.records[name])]
    if not other:
        return []
    counts = f"{len(first.records[other[0]])} in the first run, {len(second.records[other[0]])} in the second"
    more = "; a posterior mean of more samples is better by that alone" if first.posterior and second.posterior else ""
    return [f"the numbers of samples differ for {_some(other)}: {counts}{more}"]


def _metrics(first: Run, second: Run, names: Sequence[str]) -> list[str]:
    def known(run: Run) -> set[str]:
        return {metric for name in names for metric, value in run.single[name].items() if value is not None}

    old, new = known(first), known(second)
    alone = [(metric, "first" if metric in old else "second") for metric in sorted(old ^ new)]
    return [f"{metric} has values in the {which} run only: not compared" for metric, which in alone]


def _times(first: Run, second: Run, names: Sequence[str]) -> list[str]:
    times = [[run.single[name].get("seconds") for name in names] for run in (first, second)]
    if all(len(set(own)) == len(own) for own in times):
        return []
    return ["the images of a batch share one time, so the interval and the p-values of the seconds claim too much"]


def _settings(run: Run) -> dict[str, object]:
    choices = {f"{group} =": choice for group, choice in run.choices.items()}
    return choices | flat({key: value for key, value in run.config.items() if key not in IGNORED})


def _written(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _some(names: Sequence[str]) -> str:
    """1 image (a), or 5 images (a, b, c, …)."""
    return f"{len(names)} image{'s' if len(names) > 1 else ''} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
