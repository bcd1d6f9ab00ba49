"""Which images a run takes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Literal, Self

from torch import Tensor

from diffusion_priors.evaluation.reporting.format import counted
from diffusion_priors.evaluation.restoration.batches import Batch, Items
from diffusion_priors.evaluation.restoration.frozen import FrozenImages
from diffusion_priors.images.find import Found, check_path, find_images, some
from diffusion_priors.images.fit import Fit
from diffusion_priors.images.formats import ARRAYS, LARGE, SUFFIXES, open_image
from diffusion_priors.images.io import image_size, read_image
from diffusion_priors.operators.array_file import read_measurement
from diffusion_priors.operators.base import IMAGE_UNIT, Operator
from diffusion_priors.runs.memory import check_workers
from diffusion_priors.runs.printable import printable
from diffusion_priors.runs.values import Text, Texts
from diffusion_priors.solvers.method import Method

FAR = 10.0
"""The largest magnitude in a measurement that is an image in [-1, 1] with noise. Beyond it, the file has another unit."""


class Images(Items):
    """Image files under `where`, fitted to `size`, with `channels`.

    Raises FileNotFoundError or ValueError where an image is missing, is no file or is given twice.
    """

    def __init__(
        self,
        where: str | Sequence[str],
        channels: int,
        size: tuple[int, int],
        fit: Fit,
        num_samples: int = 1,
        suffixes: Collection[str] = SUFFIXES,
    ) -> None:
        self.found: Found = find_images(where, suffixes)
        self.paths = self.found.paths
        super().__init__(self.found.ids, num_samples)
        self.notices += self.found.notices
        self.channels, self.size, self.fit = channels, size, fit

    def check_apart(self, output: Path) -> None:
        self.found.check_apart(output)

    def given(self, index: int) -> Tensor:
        return read_image(self.paths[index], self.channels, self.size, self.fit)

    def only(self, kept: Sequence[int]) -> Self:
        """Keep these images, by their index."""
        self.paths, self.ids = [self.paths[i] for i in kept], [self.ids[i] for i in kept]
        return self

    def check(self, operator: Operator, image_shape: tuple[int, int, int], measurement_spec: dict) -> None:
        wanted = operator.file_size((image_shape[1], image_shape[2]))
        for index, path in enumerate(self.paths):
            self.given(index)
            if wanted is not None and (size := self.file_size(path)) != wanted:
                raise ValueError(
                    f"the mask or kernel is {_shown(wanted)}, the image {path} is {_shown(size)} and the prior's are "
                    f"{_shown(image_shape[1:])} (height x width); give operator.path a file of the size of the prior or of every image"
                )
        self._note_large()

    def file_size(self, path: Path) -> tuple[int, int]:
        """(height, width) of an image file."""
        return image_size(path)[0]

    def _note_large(self) -> None:
        large = []
        for path in (path for path in self.paths if not is_array(path)):
            with open_image(path) as image:
                if image.width * image.height > LARGE:
                    large.append(f"{printable(path.name, 80)} has {image.width * image.height / 1e6:.0f}")
        if large:
            self.notices.append(f"more than {LARGE / 1e6:.0f} megapixels, which take time and memory to read: {some(large)}")


def _shown(size: Sequence[int]) -> str:
    return f"{size[0]} x {size[1]}"


class CleanImages(Images):
    """Clean images, which the run degrades and then restores."""

    has_truth = True

    def __getitem__(self, item: int) -> Batch:
        index, sample = divmod(item, self.num_samples)
        return Batch((self.ids[index],), (sample,), self.given(index)[None], None)


class Measurements(Images):
    """Measurements y, which the run restores as they are. Nothing is known of the clean images.

    `y` (1, …) is a measurement of `operator`, which says what the files hold: arrays of its shape in the unit of y, taken as they
    are, and image files where y is an image. Only these are fitted to the size of y.
    """

    def __init__(self, where: str | Sequence[str], operator: Operator, y: Tensor, fit: Fit, num_samples: int = 1) -> None:
        image = operator.as_image(y)
        channels, *size = operator.image_shape[1:] if image is None else image.shape[1:]
        super().__init__(where, channels, tuple(size), fit, num_samples, ARRAYS if image is None else ARRAYS | SUFFIXES)
        strange = [path for path in self.paths if image is None and not is_array(path)]
        if strange:
            raise ValueError(
                f"the measurement of {type(operator).__name__} is no image, so the image file {strange[0]} cannot hold it; give an .npy, "
                f".npz or .safetensors file with y, {tuple(y.shape[1:])} {str(y.dtype).removeprefix('torch.')}"
            )
        self.like, self.unit, self.image_channels = y[0], operator.unit, operator.image_shape[1]

    def __getitem__(self, item: int) -> Batch:
        index, sample = divmod(item, self.num_samples)
        return Batch((self.ids[index],), (sample,), None, self.given(index)[None])

    def given(self, index: int) -> Tensor:
        return self._array(self.paths[index])[0] if is_array(self.paths[index]) else super().given(index)

    def check(self, operator: Operator, image_shape: tuple[int, int, int], measurement_spec: dict) -> None:
        super().check(operator, image_shape, measurement_spec)
        repeated = [path for path in self.paths if is_array(path) and self._array(path)[1]]
        if repeated:
            count = self.image_channels
            self.notices.append(
                f"y has one channel and is repeated for the {count} of the prior: {some([printable(path.name, 80) for path in repeated])}. "
                f"Its noise counts {count} times; a noise_model.sigma of √{count} times that of y makes up for this"
            )

    def file_size(self, path: Path) -> tuple[int, int]:
        """(height, width) of an image file; an array is not resized, so that no mask or kernel follows it."""
        return (self.size[0], self.size[1]) if is_array(path) else super().file_size(path)

    def _array(self, path: Path) -> tuple[Tensor, bool]:
        return read_measurement(path, self.like, self.image_channels, FAR if self.unit == IMAGE_UNIT else float("inf"))


def is_array(path: Path) -> bool:
    return path.suffix.lower() in ARRAYS


class ImageSet:
    """The images under `root` (file, folder, glob or list), fitted to the prior's size; the first `limit` of them.

    Instead of clean images, `degraded` takes measurements that are restored as they are: degraded images, and arrays of numbers
    in the unit of y. `measurements` is a folder of frozen measurements. `freeze` is a folder to save the measurements to.
    `split` validation or test takes one of two parts without a common image: about `validation` of the images, chosen by
    their names alone, are for tuning.
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

    def _degraded(self, method: Method, num_samples: int) -> Measurements:
        check_known(method.operator)
        return Measurements(self.degraded, method.operator, method.grey_measurement(), self.fit, num_samples)

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
            "use operator=inpaint_mask, operator=deblur_kernel, a mask or operator.path of your own, or another without randomness"
        )
