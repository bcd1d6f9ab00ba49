"""Scores of images that another program made, against their ground truths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from diffusion_priors.evaluation.metrics.per_image import Metrics
from diffusion_priors.evaluation.reporting.format import counted
from diffusion_priors.evaluation.restoration.batches import Restored
from diffusion_priors.evaluation.restoration.finish import finalize_run
from diffusion_priors.evaluation.restoration.folder import RestorationFolder, changed
from diffusion_priors.images.find import Found, find_images
from diffusion_priors.images.fit import Exact
from diffusion_priors.images.ids import alike, image_id
from diffusion_priors.images.io import image_size, read_image
from diffusion_priors.runs.layout import TRUTH, restoration
from diffusion_priors.runs.reading.records import Record

BATCH = 8


@dataclass(frozen=True)
class Pair:
    """Two image files of one name and one `size` (height, width), read with `channels`."""

    name: str
    sample: Path
    truth: Path
    size: tuple[int, int]
    channels: int


def pairs(samples: Found, truth: Found) -> tuple[list[Pair], list[str], list[str]]:
    """Images matched by their path below what was given, without suffix; and the names that only samples, or only truth, have.

    Raises ValueError where two images have one name, no name is in both, or two images of one name differ in size.
    """
    made, true = by_name(samples, "samples"), by_name(truth, "truth")
    both = sorted({*made} & {*true})
    if not both:
        found = f"samples has {', '.join(sorted(made)[:3])}, …; truth has {', '.join(sorted(true)[:3])}, …"
        raise ValueError(f"samples and truth have no image name in common ({found}); give two images of a pair the same name")
    found = [_pair(name, made[name], true[name]) for name in both]
    return found, sorted({*made} - {*both}), sorted({*true} - {*both})


def by_name(found: Found, key: str) -> dict[str, Path]:
    """The images by the id that they would have as PNGs."""
    named: dict[str, Path] = {}
    for path, below in found.images:
        name = image_id(below.with_suffix(".png"))
        if name in named:
            raise ValueError(f"{key} has two images called {name}: {named[name]} and {path}; images are matched by name")
        named[name] = path
    if (two := alike(named)) is not None:
        raise ValueError(f"{key} has the images {named[two[0]]} and {named[two[1]]}, whose names differ in case alone; rename one")
    return named


def _pair(name: str, sample: Path, truth: Path) -> Pair:
    sizes, grey = [], []
    for path in (sample, truth):
        size, is_grey = image_size(path)
        sizes.append(size)
        grey.append(is_grey)
    if sizes[0] != sizes[1]:
        (h, w), (height, width) = sizes
        raise ValueError(f"{sample} is {h} x {w}, but its truth {truth} is {height} x {width}; resize one of them first")
    return Pair(name, sample, truth, sizes[0], 1 if all(grey) else 3)


def scored(found: Sequence[Pair], metrics: Metrics) -> Iterator[Restored]:
    """Batches of images of one size with their records. What only a restoration run knows is None in them."""
    for (size, channels), group in groupby(sorted(found, key=_kind), key=_kind):
        alike = list(group)
        for start in range(0, len(alike), BATCH):
            part = alike[start : start + BATCH]
            x, truth = (torch.stack([read_image(path, channels, size, Exact()) for path in paths]) for paths in _paths(part))
            yield Restored(tuple(p.name for p in part), (0,) * len(part), truth, None, x, _records(part, x, truth, metrics))


def _kind(pair: Pair) -> tuple[tuple[int, int], int]:
    return pair.size, pair.channels


def _paths(part: Sequence[Pair]) -> tuple[list[Path], list[Path]]:
    return [p.sample for p in part], [p.truth for p in part]


def _records(part: Sequence[Pair], x: Tensor, truth: Tensor, metrics: Metrics) -> list[dict]:
    scores = metrics(x, truth)
    unknown = dict.fromkeys(metrics.names)
    return [
        Record(
            id=pair.name,
            sample=0,
            seed=None,
            scores={name: values[b] for name, values in scores.items()},
            measurement_scores=unknown,
        ).to_dict()
        for b, pair in enumerate(part)
    ]


@dataclass
class Scoring:
    """Scores the images of `samples` against those of `truth`, each a file, folder, glob or list, matched by name.

    It leaves the same folder as a restoration run. `check` refuses what cannot work; `run` does the work.
    """

    samples: str | list[str]
    truth: str | list[str]
    metrics: Metrics
    output: Path
    overwrite: bool = False
    repair: bool = False
    finished: dict | None = field(default=None, init=False)

    def check(self, config: dict) -> None:
        """Raises ValueError or OSError, in one line, for images that cannot be compared."""
        self.folder = RestorationFolder(self.output, 0, self.overwrite, self.repair)
        self.known = self.folder.find(config, metrics=self.metrics.names)
        found = [find_images(where) for where in (self.samples, self.truth)]
        for one in found:
            one.check_apart(self.output)
        self.notices = [notice for one in found for notice in one.notices]
        self.pairs, self.only_samples, self.only_truth = pairs(*found)
        self.folder.check_images(self.known, {(pair.name, 0) for pair in self.pairs})
        self._check_known()
        if self.known == {(pair.name, 0) for pair in self.pairs}:
            self.finished = self.folder.complete_summary()
        if self.finished is not None:
            return
        self.metrics.prepare(max((pair.size for pair in self.pairs), key=min))
        self.metrics.check(len(self.pairs), 1)

    def _check_known(self) -> None:
        """Raises ValueError where the content of an image on record has changed."""
        layout = self.folder.layout
        for pair in self.pairs:
            if (pair.name, 0) in self.known and any(
                not torch.equal(*(read_image(path, pair.channels, pair.size, Exact()) for path in both))
                for both in ((pair.sample, layout.image(pair.name, restoration(0))), (pair.truth, layout.image(pair.name, TRUTH)))
            ):
                raise changed(self.output, pair.name)

    def title(self) -> str:
        """What is scored, and which images have no counterpart."""
        lines = [f"{self.samples} against {self.truth}: {counted(len(self.pairs), 'image')}"]
        for names, other in ((self.only_samples, "truth"), (self.only_truth, "samples")):
            if names:
                shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
                lines.append(f"left out, because {other} has no image of that name: {len(names)} ({shown})")
        return "\n".join(lines + self.notices)

    def run(self, text: str) -> dict:
        """Score what is not on record yet, then summarise; → the summary. `text` is the content of config.yaml."""
        self.folder.open(text)
        for done in scored([pair for pair in self.pairs if (pair.name, 0) not in self.known], self.metrics):
            self.folder.add(done, self.known)
        return finalize_run(self.folder, self.title().splitlines()[0], self.metrics, 1, [(pair.name, 0) for pair in self.pairs])
