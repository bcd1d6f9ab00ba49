"""The paper's figures: which images of which jobs stand where."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from diffusion_priors.evaluation.reporting.finished_run import Job

Tile = tuple[str, Image.Image]


class Layout(ABC):
    """Rows of labelled images from jobs and their names in the table; nothing where there are no images."""

    @abstractmethod
    def rows(self, jobs: Sequence[tuple[str, Job]], image: str | None) -> list[list[Tile]]:
        """`image` is the id shown; None: the first that all jobs have restored. Raises ValueError where no job has it."""


class Columns(Layout):
    """A row per job: the images it was `given`, and the restoration `made` of them under the job's name."""

    given: tuple[tuple[str, str], ...] = ()
    made = "{}"

    def rows(self, jobs: Sequence[tuple[str, Job]], image: str | None) -> list[list[Tile]]:
        restored = {job.folder: restored_images(job) for _, job in jobs}
        jobs = [(name, job) for name, job in jobs if restored[job.folder]]
        if not jobs:
            return []
        known = set.union(*map(set, restored.values()))
        if image is not None and image not in known:
            raise ValueError(f"table.image={image} was restored by no job; set it to one of {', '.join(sorted(known))}")
        common = set.intersection(*(set(restored[job.folder]) for _, job in jobs)) or known
        return [self._row(name, job, image or min(common)) for name, job in jobs]

    def _row(self, name: str, job: Job, image: str) -> list[Tile]:
        folder = job.folder / "images" / image
        record = next((r for r in job.records() if r["id"] == image), {})
        files = [*((stem, text) for stem, text in self.given), ("restoration-0", self.made.format(name))]
        scores = {"measurement": record.get("psnr_measurement"), "restoration-0": record.get("psnr")}
        return [_tile(folder / f"{stem}.png", text, scores.get(stem)) for stem, text in files]


class Restorations(Columns):
    """Measurement, ground truth, reconstruction."""

    given = (("measurement", "Measurement"), ("truth", "Ground truth"))


class Denoising(Columns):
    """Clean image, noisy image, denoised image."""

    given = (("truth", "Clean image"), ("noisy", "Noisy image"))
    made = "Denoised, {}"


class Samples(Layout):
    """Every sample of every job, in rows of `columns`, at most `most` of them."""

    def __init__(self, columns: int = 4, most: int = 24) -> None:
        for name, value in (("columns", columns), ("most", most)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}; set table.figure.{name}")
        self.columns, self.most = columns, most

    def rows(self, jobs: Sequence[tuple[str, Job]], image: str | None) -> list[list[Tile]]:
        tiles = [tile for _, job in jobs for tile in self._tiles(job, image)][: self.most]
        return [tiles[i : i + self.columns] for i in range(0, len(tiles), self.columns)]

    def _tiles(self, job: Job, image: str | None) -> list[Tile]:
        names = [name for name in restored_images(job) if image in (None, name)]
        paths = [path for name in names for path in sorted((job.folder / "images" / name).glob("restoration-*.png"), key=_number)]
        seed = f"seed {job.config['seed']}" if "seed" in job.config else job.folder.name
        return [_tile(path, seed if len(paths) == 1 else f"{seed}, sample {_number(path)}", None) for path in paths]


def restored_images(job: Job) -> list[str]:
    """The ids of the images whose first sample came out, in order."""
    return sorted(path.parent.name for path in (job.folder / "images").glob("*/restoration-0.png"))


def _number(path: Path) -> int:
    last = path.stem.rpartition("-")[2]
    return int(last) if last.isdecimal() else 0


def _tile(path: Path, text: str, psnr: float | None) -> Tile:
    """An image over its name and PSNR; an empty one where there is no such file, so that columns stay columns."""
    try:
        with Image.open(path) as found:
            return text if psnr is None else f"{text}\n{psnr:.2f} dB", found.convert("RGB")
    except OSError:
        return f"{text}\nnot saved", Image.new("RGB", (1, 1), "#eeeeee")
