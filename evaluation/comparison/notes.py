"""What the values of a comparison do not show: how else the two runs differ."""

from __future__ import annotations

import filecmp
import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from diffusion_priors.evaluation.reporting.finished_run import FinishedRun
from diffusion_priors.evaluation.reporting.format import ABSENT
from diffusion_priors.evaluation.reporting.image_records import ImageRecords
from diffusion_priors.runs.config import flat
from diffusion_priors.runs.layout import TRUTH, RunLayout
from diffusion_priors.runs.reading.png import read_png

IGNORED = ("output_dir", "overwrite", "repair")
"""Configuration keys that do not change the results of a run."""

Pairs = Sequence[tuple[ImageRecords, ImageRecords]]
"""What the first and the second run have on record of each image in common."""


def notes(first: FinishedRun, second: FinishedRun, pairs: Pairs) -> list[str]:
    """A sentence for each difference between the runs; `pairs` are the images that both restored."""
    return [
        *_unfinished(first, "first"),
        *_unfinished(second, "second"),
        *_alone(first, second, "first"),
        *_alone(second, first, "second"),
        *_truths(first.folder, second.folder, pairs),
        *_measurements(pairs),
        *_seeds(pairs),
        *_samples(pairs),
        *_metrics(pairs),
        *_times(pairs),
    ]


def changes(first: FinishedRun, second: FinishedRun) -> list[tuple[str, str, str]]:
    """The settings that differ, as (key, first, second). The option of a group precedes the keys in the group."""
    old, new = _settings(first), _settings(second)
    keys = [key for key in sorted(old | new) if key not in old or key not in new or old[key] != new[key]]
    return [(key, *(_shortened(side[key]) if key in side else ABSENT for side in (old, new))) for key in keys]


def _unfinished(run: FinishedRun, which: str) -> list[str]:
    found, error = [], RunLayout(run.folder).error
    if run.summary is None:
        found.append(f"the {which} run is not finished: only the images it restored can be compared")
    if error.is_file():
        found.append(f"the {which} run ended in an error, see {error}")
    if run.failed:
        found.append(f"{_some(run.failed)} failed in the {which} run: left out of both")
    return found


def _alone(run: FinishedRun, other: FinishedRun, which: str) -> list[str]:
    alone = [name for name in (*run.restored, *run.failed) if name not in other.images]
    return [f"{_some(alone)} only in the {which} run: left out"] if alone else []


def _truths(first: Path, second: Path, pairs: Pairs) -> list[str]:
    files = {image.id: [RunLayout(folder).image(image.id, TRUTH) for folder in (first, second)] for image, _ in pairs}
    other = [name for name, pair in files.items() if all(path.is_file() for path in pair) and not _same_image(*pair)]
    if not other:
        return []
    return [f"the truth differs for {_some(other)}: the images have the same name but another content or size, and cannot be compared"]


def _same_image(first: Path, second: Path) -> bool:
    if filecmp.cmp(first, second, shallow=False):
        return True
    a, b = (_truth(path).convert("RGB") for path in (first, second))
    return a.size == b.size and a.tobytes() == b.tobytes()


def _truth(path: Path) -> Image.Image:
    try:
        return read_png(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}; evaluate again") from error


def _measurements(pairs: Pairs) -> list[str]:
    other = [one.id for one, two in pairs if one.measurement_hashes != two.measurement_hashes]
    if not other:
        return []
    return [f"the measurement differs for {_some(other)} of {len(pairs)}: a part of each difference comes from the measurements"]


def _seeds(pairs: Pairs) -> list[str]:
    old, new = ({str(record.get("seed")) for image in side for record in image.records} for side in zip(*pairs, strict=True))
    return [] if old == new else [f"the seeds differ: {', '.join(sorted(old))} in the first run, {', '.join(sorted(new))} in the second"]


def _samples(pairs: Pairs) -> list[str]:
    other = [(one, two) for one, two in pairs if len(one.records) != len(two.records)]
    if not other:
        return []
    one, two = other[0]
    counts = f"{len(one.records)} in the first run, {len(two.records)} in the second"
    both = any(one.posterior for one, _ in pairs) and any(two.posterior for _, two in pairs)
    more = "; a posterior mean of more samples is better for that reason alone" if both else ""
    return [f"the numbers of samples differ for {_some([one.id for one, _ in other])}: {counts}{more}"]


def _metrics(pairs: Pairs) -> list[str]:
    def known(side: Sequence[ImageRecords]) -> set[str]:
        return {metric for image in side for metric, value in image.scores.items() if value is not None}

    old, new = map(known, zip(*pairs, strict=True))
    alone = [(metric, "first" if metric in old else "second") for metric in sorted(old ^ new)]
    return [f"{metric} has values in the {which} run only: not compared" for metric, which in alone]


def _times(pairs: Pairs) -> list[str]:
    times = [[image.mean("seconds") for image in side] for side in zip(*pairs, strict=True)]
    if all(len(set(own)) == len(own) for own in times):
        return []
    return ["the images of a batch share one time: the interval and the p-values of the time are too small"]


def _settings(run: FinishedRun) -> dict[str, object]:
    choices = {f"{group} =": choice for group, choice in run.choices.items()}
    kept = {key: value for key, value in run.settings["config"].items() if key not in IGNORED}
    return choices | flat(kept)


def _shortened(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _some(names: Sequence[str]) -> str:
    """1 image (a), or 5 images (a, b, c, …)."""
    return f"{len(names)} image{'s' if len(names) > 1 else ''} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
