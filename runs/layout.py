"""The layout of a run's folder: every file name is spelled out here and nowhere else.

config.yaml             the resolved configuration, the command and the versions
records.jsonl           one record per image and sample; process 3 appends to records.3.jsonl until the end of the run
images/<id>/            truth.png  measurement.png or measurement.safetensors  noisy.png  restoration-<sample>.png
                        drawing.png and first-look.png, of a measurement that is no image: as its field looks at it, and a
                        quick reconstruction
                        mean.png and std.png, of the samples
                        film-<sample>.png and film-<sample>.webp: x̂0 over the steps, next to each other and animated
posterior.jsonl         the scores of each image's posterior mean
figure.png, reliability.png, report.html
summary.json            written last: a folder without it is unfinished
error.txt               the traceback of a job that failed
not_applicable.txt      why the solver cannot be used for this operator, noise model or sampler
csv/, tensorboard/, wandb/             of dashboards
exact_posterior.json, clouds.npz       of a run against an exact posterior, instead of records and images
.run.lock               while a process works in the folder; what kill -9 leaves of it locks nothing
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from diffusion_priors.runs.ids import check_id

CONFIG = "config.yaml"
RECORDS = "records.jsonl"
IMAGES = "images"
POSTERIOR = "posterior.jsonl"
FIGURE = "figure.png"
RELIABILITY = "reliability.png"
REPORT = "report.html"
SUMMARY = "summary.json"
ERROR = "error.txt"
NOT_APPLICABLE = "not_applicable.txt"
EXACT_POSTERIOR = "exact_posterior.json"
CLOUDS = "clouds.npz"
LOCK = ".run.lock"
METRICS = "metrics.csv"
CHECKPOINTS = "checkpoints"
LEADERBOARD = "leaderboard.csv"
EXACT_TABLE = "table.csv"

TRUTH, MEASUREMENT, NOISY, MEAN, STD = "truth", "measurement", "noisy", "mean", "std"
DRAWING, FIRST_LOOK = "drawing", "first-look"
"""The kinds of images that a run keeps of each input; `restoration` names the kind of one sample."""

WHITE = 0.25
"""The standard deviation, on [0, 1] images, that std.png draws white. It is the same for all images, so that they compare."""


OF_A_RUN = {
    CONFIG: (
        RECORDS,
        "records.*.jsonl",
        SUMMARY,
        f"{IMAGES}/*/truth.png",
        f"{IMAGES}/*/restoration-*.png",
        EXACT_POSTERIOR,
        METRICS,
        CHECKPOINTS,
    ),
    RECORDS: (IMAGES,),
    REPORT: (EXACT_TABLE,),
    LEADERBOARD: ("leaderboard.html",),
}
"""A folder with one of these files and something of the right side is that of a run or of a sweep, finished or not."""


def is_run(folder: Path) -> bool:
    """Whether `folder` is that of a run of sample.py, evaluate.py or train.py, or of a sweep."""
    return any((folder / first).exists() and any(any(folder.glob(other)) for other in others) for first, others in OF_A_RUN.items())


def restoration(sample: int) -> str:
    """The kind of the image that holds this sample: restoration-0, …"""
    return f"restoration-{sample}"


def film(sample: int) -> str:
    """The kind of the image that holds x̂0 over the steps of this sample."""
    return f"film-{sample}"


@dataclass(frozen=True)
class RunLayout:
    """The paths of everything in the folder `root` of one run."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / CONFIG

    @property
    def records(self) -> Path:
        """The records of the first process, and of all processes once the run is finished."""
        return self.root / RECORDS

    def records_of(self, rank: int) -> Path:
        """The file that process `rank` appends to."""
        return self.records if rank == 0 else self.root / f"records.{rank}.jsonl"

    def all_records(self) -> list[Path]:
        """The files of records that exist, whatever they are: what is no regular file is refused where it is read."""
        return [path for path in [self.records, *sorted(self.root.glob("records.*.jsonl"))] if os.path.lexists(path)]

    @property
    def images(self) -> Path:
        return self.root / IMAGES

    def image_folder(self, name: str) -> Path:
        """The folder of the image with the id `name`. Raises ValueError for an id that names another place."""
        check_id(name)
        return self.images / name

    def image(self, name: str, kind: str) -> Path:
        """A PNG of the image with the id `name`: image("face-1", TRUTH), image("face-1", restoration(0))."""
        return self.image_folder(name) / f"{kind}.png"

    def animation(self, name: str, sample: int) -> Path:
        """x̂0 over the steps of one sample, as an animated WebP."""
        return self.image_folder(name) / f"{film(sample)}.webp"

    def restorations(self, name: str) -> list[Path]:
        """The restorations that exist of the image with the id `name`, in the order of their samples."""
        samples = [(re.fullmatch(r"restoration-(\d+)\.png", path.name), path) for path in self.image_folder(name).glob("*.png")]
        return [path for _, path in sorted((int(match[1]), path) for match, path in samples if match)]

    def measurement(self, name: str) -> Path:
        """The measurement of an image where it is no image itself; otherwise it is image(name, MEASUREMENT)."""
        return self.image_folder(name) / "measurement.safetensors"

    @property
    def posterior(self) -> Path:
        return self.root / POSTERIOR

    @property
    def figure(self) -> Path:
        return self.root / FIGURE

    @property
    def reliability(self) -> Path:
        return self.root / RELIABILITY

    @property
    def report(self) -> Path:
        return self.root / REPORT

    @property
    def summary(self) -> Path:
        return self.root / SUMMARY

    @property
    def error(self) -> Path:
        return self.root / ERROR

    @property
    def not_applicable(self) -> Path:
        return self.root / NOT_APPLICABLE

    @property
    def exact_posterior(self) -> Path:
        return self.root / EXACT_POSTERIOR

    @property
    def clouds(self) -> Path:
        return self.root / CLOUDS

    @property
    def csv(self) -> Path:
        return self.root / "csv"

    @property
    def tensorboard(self) -> Path:
        return self.root / "tensorboard"

    @property
    def wandb(self) -> Path:
        return self.root / "wandb"

    def results(self) -> list[Path]:
        """The files that follow from the records: a run that starts over deletes them."""
        names = (SUMMARY, POSTERIOR, FIGURE, RELIABILITY, REPORT, ERROR, NOT_APPLICABLE)
        return [self.root / name for name in names]
