"""What `restore` returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from PIL import Image
from torch import Tensor

from diffusion_priors.evaluation.reporting.figure import Tile, draw_figure, label
from diffusion_priors.evaluation.restoration.batches import Restored
from diffusion_priors.evaluation.restoration.folder import RestorationFolder
from diffusion_priors.images.io import to_image
from diffusion_priors.runs.layout import MEASUREMENT, TRUTH
from diffusion_priors.solvers.trajectory import kept_steps


@dataclass(frozen=True, repr=False, eq=False)
class Result:
    """Restorations of N images, K samples each, on the CPU; images are float32 in [-1, 1]. What does not exist is None.

    `ids` are the N ids. `samples` (N, K, C, H, W) are the restorations. `truth` (N, C, H, W) are the ground truths. `y` (N, …)
    are the measurements in their own unit, and `measurement` (N, C, h, w) the same as images. `trajectory`
    (N, K, frames, C, H, W) are x̂0 on the way, and `steps` the numbers of their steps, from 1 on. `records` has one dictionary
    per sample, as a line of records.jsonl: psnr, ssim, residual, nfe_forward, nfe_vjp, seconds, error and others.
    """

    ids: tuple[str, ...]
    samples: Tensor
    truth: Tensor | None
    y: Tensor | None
    measurement: Tensor | None
    trajectory: Tensor | None
    steps: tuple[int, ...]
    records: list[dict]
    restored: Restored

    @classmethod
    def of(cls, restored: Restored, num_samples: int, steps: Sequence[int] = ()) -> Result:
        """The results of items that are ordered by image, `num_samples` for each; `steps` are those of the trajectory."""

        def by_image(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.unflatten(0, (-1, num_samples))

        def once(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[::num_samples]

        samples = restored.x0.unflatten(0, (-1, num_samples))
        return cls(
            ids=restored.ids[::num_samples],
            samples=samples,
            truth=once(restored.truth),
            y=once(restored.y),
            measurement=once(restored.measurement_image),
            trajectory=by_image(restored.trajectory),
            steps=tuple(steps),
            records=restored.records,
            restored=restored,
        )

    def __repr__(self) -> str:
        """What fits on a line: a notebook would print every number of the tensors."""
        images, samples, channels, height, width = self.samples.shape
        scores = [record["psnr"] for record in self.records if record["psnr"] is not None]
        psnr = f", mean PSNR {sum(scores) / len(scores):.2f} dB" if scores else ""
        return f"Result(images: {images}, samples of each: {samples}, size: {channels} x {height} x {width}{psnr})"

    @property
    def mean(self) -> Tensor:
        """The mean of each image's samples, (N, C, H, W)."""
        return self.samples.mean(1)

    @property
    def std(self) -> Tensor:
        """The standard deviation of each image's samples, (N, C, H, W); 0 for one sample."""
        return self.samples.std(1, correction=0)

    def pil(self, image: int = 0, sample: int = 0) -> Image.Image:
        """One restoration as an 8-bit image."""
        return to_image(self.samples[image, sample])

    def figure(self, title: str = "", samples: int = 4) -> Image.Image:
        """A row per image: the ground truth, the measurement, and at most `samples` restorations, with their PSNR."""
        return draw_figure([self._row(image, samples) for image in range(len(self.ids))], title)

    def film(self, image: int = 0, sample: int = 0, frames: int = 8) -> Image.Image:
        """At most `frames` x̂0 of a trajectory next to each other. Raises ValueError where none was kept."""
        if self.trajectory is None:
            raise ValueError("no trajectory was kept; call restore with trajectory=True")
        shown = kept_steps(len(self.steps), frames)
        row = [(f"step {self.steps[index]}", to_image(self.trajectory[image, sample, index])) for index in shown]
        return draw_figure([row], f"{self.ids[image]}, sample {sample}: estimates of the clean image")

    def _row(self, image: int, samples: int) -> list[Tile]:
        count = self.samples.shape[1]
        records = self.records[image * count : (image + 1) * count]
        inputs = ((TRUTH, self.truth), (MEASUREMENT, self.measurement))
        tiles = [(label(kind, records[0]), to_image(images[image])) for kind, images in inputs if images is not None]
        views = self.restored.views[image * count] if self.restored.views else []
        tiles += [("\n".join(view.text.split("; ")[:2]), to_image(view.image)) for view in views]
        return tiles + [(label("restoration", record), self.pil(image, record["sample"])) for record in records[:samples]]

    def save(self, folder: str | PathLike[str]) -> Path:
        """Write records.jsonl, images/<id>/ and figure.png, as a run of sample.py leaves them; → the folder.

        Raises FileExistsError where a run has left records there.
        """
        target = RestorationFolder(Path(folder))
        target.check_writable()
        target.check_unused()
        target.add(self.restored, set())
        self.figure().save(target.layout.figure)
        return target.root
