"""Which images an evaluation takes."""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

from diffusion_priors.evaluation.restoration.batches import Images
from diffusion_priors.images.io import Fit


class ImageSet:
    """The images under `root` (file, folder, glob or list), fitted to the prior's size; the first `limit` of them.

    `split` validation or test takes one of two parts that never meet: about `validation` of the images, chosen by
    their names alone, are for tuning. `measurements` is a folder of frozen measurements to read instead of `root`,
    `freeze` one to save them to. `workers` processes read images ahead.

    Raises ValueError for numbers out of bounds and a `root` beside `measurements`.
    """

    def __init__(
        self,
        fit: Fit,
        root: str | list[str] | None = None,
        split: Literal["all", "validation", "test"] = "all",
        validation: float = 0.2,
        limit: int | None = None,
        measurements: str | None = None,
        freeze: str | None = None,
        workers: int = 0,
    ) -> None:
        if not 0.0 < validation < 1.0:
            raise ValueError(f"the part of the images for validation lies between 0 and 1, got {validation}; set data.validation")
        if limit is not None and limit < 1:
            raise ValueError(f"a run needs at least one image, got {limit}; set data.limit, or data.limit=null for all")
        if workers < 0:
            raise ValueError(f"there cannot be {workers} reading processes; set data.workers")
        if measurements is not None and root is not None:
            raise ValueError("data.root and data.measurements are both given, and measurements hold their own images; give one of them")
        if measurements is not None and freeze is not None:
            raise ValueError("data.measurements reads frozen measurements and data.freeze makes them; give one of them")
        self.fit, self.root, self.split, self.validation, self.limit = fit, root, split, validation, limit
        self.measurements, self.freeze, self.workers = measurements, freeze, workers

    def images(self, shape: tuple[int, int, int], num_samples: int) -> Images:
        """The images, (C, H, W) = `shape`, sorted by id. Raises FileNotFoundError or ValueError where there are none."""
        found = Images(self.root, "truth", shape[0], shape[1:], self.fit, num_samples)
        return found.only(self.chosen(found.ids))

    def chosen(self, ids: list[str]) -> list[int]:
        """The indices of the images to take, by id. Raises ValueError where none is left."""
        order = sorted(range(len(ids)), key=ids.__getitem__)
        kept = [i for i in order if self.split == "all" or (self._share(ids[i]) < self.validation) == (self.split == "validation")]
        if not kept:
            raise ValueError(f"none of the {len(ids)} images is in data.split={self.split}; set data.validation, now {self.validation}")
        return kept[: self.limit]

    @staticmethod
    def _share(name: str) -> float:
        return int.from_bytes(blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest(), "big") / 2**64
