"""The figures of a paper: rows of labelled images from the jobs of a sweep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from diffusion_priors.evaluation.reporting.figure import Tile
from diffusion_priors.evaluation.reporting.finished_run import FinishedRun
from diffusion_priors.evaluation.reporting.format import number, spec_of
from diffusion_priors.runs.layout import MEASUREMENT, NOISY, TRUTH, RunLayout, restoration
from diffusion_priors.runs.reading.png import png_or_none

FIRST_SAMPLE = restoration(0)


class Layout(ABC):
    """Arranges the images of jobs, each with its name in the table, in rows of tiles."""

    @abstractmethod
    def rows(self, jobs: Sequence[tuple[str, FinishedRun]], image: str | None) -> list[list[Tile]]:
        """The rows; [] without images. `image` is the id to show; None: the first that all jobs restored.

        Raises ValueError if no job restored `image`.
        """


class Columns(Layout):
    """A row per job: its input images, `inputs` as (kind, label), and its restoration with the job's name in `output_label`."""

    inputs: tuple[tuple[str, str], ...] = ()
    output_label = "{}"

    def rows(self, jobs: Sequence[tuple[str, FinishedRun]], image: str | None) -> list[list[Tile]]:
        restored = {job.folder: restored_images(job) for _, job in jobs}
        jobs = [(name, job) for name, job in jobs if restored[job.folder]]
        if not jobs:
            return []
        known = set.union(*map(set, restored.values()))
        if image is not None and image not in known:
            raise ValueError(f"table.image={image} was restored by no job; set it to one of {', '.join(sorted(known))}")
        common = set.intersection(*(set(restored[job.folder]) for _, job in jobs)) or known
        return [self._row(name, job, image or min(common)) for name, job in jobs]

    def _row(self, name: str, job: FinishedRun, image: str) -> list[Tile]:
        layout = RunLayout(job.folder)
        record = job.readable_images[image].records[0] if image in job.readable_images else {}
        psnr = {MEASUREMENT: record.get("psnr_measurement"), FIRST_SAMPLE: record.get("psnr")}
        kinds = [*self.inputs, (FIRST_SAMPLE, self.output_label.format(name))]
        not_images = {MEASUREMENT} if layout.measurement(image).is_file() else set()
        return [_tile(layout.image(image, kind), text, psnr.get(kind), kind not in not_images) for kind, text in kinds]


class Restorations(Columns):
    """Measurement, ground truth, reconstruction."""

    inputs = ((MEASUREMENT, "Measurement"), (TRUTH, "Ground truth"))


class Denoising(Columns):
    """Clean image, noisy image, denoised image."""

    inputs = ((TRUTH, "Clean image"), (NOISY, "Noisy image"))
    output_label = "Denoised, {}"


class Samples(Layout):
    """The samples of all jobs in rows of `columns`, at most `most` of them."""

    def __init__(self, columns: int = 4, most: int = 24) -> None:
        for name, value in (("columns", columns), ("most", most)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}; set table.figure.{name}")
        self.columns, self.most = columns, most

    def rows(self, jobs: Sequence[tuple[str, FinishedRun]], image: str | None) -> list[list[Tile]]:
        tiles = [tile for _, job in jobs for tile in self._tiles(job, image)][: self.most]
        return [tiles[i : i + self.columns] for i in range(0, len(tiles), self.columns)]

    def _tiles(self, job: FinishedRun, image: str | None) -> list[Tile]:
        paths = [path for name in restored_images(job) if image in (None, name) for path in RunLayout(job.folder).restorations(name)]
        seed = f"seed {job.config['seed']}" if "seed" in job.config else job.folder.name
        if len(paths) == 1:
            return [_tile(paths[0], seed)]
        return [_tile(path, f"{seed}, sample {path.stem.rpartition('-')[2]}") for path in paths]


def restored_images(job: FinishedRun) -> list[str]:
    """The ids of the images whose first sample is in the folder, sorted."""
    return sorted(path.parent.name for path in RunLayout(job.folder).images.glob(f"*/{FIRST_SAMPLE}.png"))


def _tile(path: Path, text: str, psnr: float | None = None, is_image: bool = True) -> Tile:
    """An image with its label and PSNR. A grey tile keeps the columns aligned if there is no image; its label says why."""
    found = png_or_none(path)
    if found is None:
        return f"{text}\n{'not saved' if is_image else 'not an image'}", Image.new("RGB", (1, 1), "#eeeeee")
    return text if psnr is None else f"{text}\n{number(psnr, spec_of('psnr'))} dB", found.convert("RGB")
