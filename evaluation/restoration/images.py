"""Which images a run takes."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import Literal

from diffusion_priors.evaluation.reporting.format import counted
from diffusion_priors.evaluation.restoration.batches import CleanImages, DegradedImages, Items
from diffusion_priors.evaluation.restoration.frozen import FrozenImages
from diffusion_priors.images.find import check_path
from diffusion_priors.images.fit import Fit
from diffusion_priors.operators.base import Operator
from diffusion_priors.runs.memory import check_workers
from diffusion_priors.runs.values import Text, Texts
from diffusion_priors.solvers.method import Method


class ImageSet:
    """The images under `root` (file, folder, glob or list), fitted to the prior's size; the first `limit` of them.

    Instead of clean images, `degraded` takes degraded ones that are restored as they are, and `measurements` is a folder
    of frozen measurements. `freeze` is a folder to save the measurements to. `split` validation or test takes one of two
    parts without a common image: about `validation` of the images, chosen by their names alone, are for tuning.
    `workers` processes read images ahead.

    Raises ValueError for numbers out of bounds and for more than one source of images.
    """

    def __init__(
        self,
        fit: Fit,
        root: Texts | None = None,
        degraded: Texts | None = None,
        split: Literal["all", "validation", "test"] = "all",
        validation: float = 0.2,
        limit: int | None = None,
        measurements: Text | None = None,
        freeze: Text | None = None,
        workers: int = 0,
    ) -> None:
        if not 0.0 < validation < 1.0:
            raise ValueError(f"the share of images for validation must be between 0 and 1, got {validation}; set data.validation")
        if limit is not None and limit < 1:
            raise ValueError(f"a run needs at least one image, got {limit}; set data.limit, or data.limit=null for all")
        check_workers(workers, "data.workers")
        if freeze is not None and not next(path for path in (Path(freeze), *Path(freeze).absolute().parents) if path.exists()).is_dir():
            raise ValueError(f"data.freeze={freeze} is no folder and none can be made there; set data.freeze to a new folder")
        sources = {"root": root, "degraded": degraded, "measurements": measurements}
        given = [f"data.{name}" for name, source in sources.items() if source is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are both given, and each brings its own images; give one of them")
        if freeze is not None and (measurements is not None or degraded is not None):
            raise ValueError("data.freeze saves measurements of clean images, and these are measured already; give one of them")
        self.fit, self.root, self.degraded, self.split, self.validation, self.limit = fit, root, degraded, split, validation, limit
        self.measurements, self.freeze, self.workers = measurements, freeze, workers

    @property
    def given(self) -> bool:
        """Whether any images are chosen."""
        return any(source is not None for source in (self.root, self.degraded, self.measurements))

    def items(self, method: Method, num_samples: int) -> Items:
        """The items to restore, sorted by id. A mask or a kernel of the operator will follow `fit`.

        Raises FileNotFoundError or ValueError where there are none.
        """
        method.operator.fit = self.fit
        for path in (self.measurements, self.freeze):
            if path is not None:
                check_path(path)
        if self.measurements is not None:
            found = FrozenImages(Path(self.measurements), num_samples)
        elif self.degraded is not None:
            found = self._degraded(method, num_samples)
        else:
            channels, *size = method.image_shape
            found = CleanImages(self.root, channels, tuple(size), self.fit, num_samples)
        return found.only(self.chosen(found.ids))

    def _degraded(self, method: Method, num_samples: int) -> DegradedImages:
        check_known(method.operator)
        image = method.operator.as_image(method.grey_measurement())
        if image is None:
            raise ValueError(
                f"the measurement of {type(method.operator).__name__} is no image, so no image file holds it; "
                "give frozen measurements with evaluate.py data.measurements=FOLDER"
            )
        channels, *size = image.shape[1:]
        return DegradedImages(self.degraded, channels, tuple(size), self.fit, num_samples)

    def chosen(self, ids: list[str]) -> list[int]:
        """The indices of the images to take, by id. Raises ValueError where none is left."""
        order = sorted(range(len(ids)), key=ids.__getitem__)
        kept = [i for i in order if self.split == "all" or (self._share(ids[i]) < self.validation) == (self.split == "validation")]
        if not kept:
            raise ValueError(
                f"data.split={self.split} holds none of {counted(len(ids), 'image')}; set data.validation, now {self.validation}"
            )
        return kept[: self.limit]

    @staticmethod
    def _share(name: str) -> float:
        return int.from_bytes(blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest(), "big") / 2**64


def check_known(operator: Operator) -> None:
    """Raises ValueError for an operator that draws: it cannot have made a measurement that exists already."""
    if operator.random:
        raise ValueError(
            "this operator draws its mask or kernel at random, so it cannot be the one that made the measurement; "
            "use operator=inpaint_mask, operator=deblur_kernel or another without randomness"
        )
