"""The items of a run, one per image and sample: what goes in (`Batch`) and what comes out (`Restored`)."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.utils.data import Dataset

from diffusion_priors.images.io import as_bits
from diffusion_priors.operators.base import Operator
from diffusion_priors.runs.layout import DRAWING, FIRST_LOOK


class Batch(NamedTuple):
    """B items: `truth` (B, C, H, W) in [-1, 1], and `measured`, a y that exists already. Either is None where it is not given."""

    ids: tuple[str, ...]
    samples: tuple[int, ...]
    truth: Tensor | None
    measured: Tensor | None

    def outside_inference_mode(self) -> Self:
        """The same values in tensors that autograd can use. Call this outside of inference mode."""
        images = (self.truth, self.measured)
        truth, measured = (x.clone() if x is not None and x.is_inference() else x for x in images)
        return self._replace(truth=truth, measured=measured)


class View(NamedTuple):
    """An image (C, h, w) in [-1, 1], saved as this `kind` with a text that says what it is. It is no restoration and has no scores."""

    kind: str
    text: str
    image: Tensor


class Restored(NamedTuple):
    """One finished batch: `x0` and `truth` (B, C, H, W) in [-1, 1], `y`, and one record per item, as records.jsonl holds it.

    `measurement_image` is y as an image, at its own size; `views` is what is shown of a y that is none. `start`
    (B, C, H, W) is the noised image that the solver started from, and `trajectory` (B, frames, C, H, W) the x̂0 on the way.
    Each is None where it does not exist. A batch that was interrupted has no items.
    """

    ids: tuple[str, ...]
    samples: tuple[int, ...]
    truth: Tensor | None
    y: Tensor | None
    x0: Tensor
    records: list[dict]
    start: Tensor | None = None
    measurement_image: Tensor | None = None
    views: list[list[View]] | None = None
    trajectory: Tensor | None = None


def views_of(operator: Operator, y: Tensor) -> list[list[View]]:
    """For each measurement: its drawing, and the reconstruction that its field looks at first, as far as the operator has them."""
    views: list[list[View]] = [[] for _ in y]
    drawing, look = operator.drawing(y), operator.first_look(y)
    if drawing is not None:
        for own, text, image in zip(views, drawing.captions(), drawing.images(), strict=True):
            own.append(View(DRAWING, text, image))
    if look is not None:
        name, images = look
        for own, image in zip(views, images, strict=True):
            own.append(View(FIRST_LOOK, name, image))
    return views


class Items(Dataset):
    """The items of a run in order: image 0 sample 0, image 0 sample 1, ….

    `ids` are the names of the images. `has_truth` says whether restorations can be scored. `measurement_seed` is the
    seed of measurements that were made before; it is None where the run makes them. `notices` are lines to print.
    """

    has_truth = False
    measurement_seed: int | None = None

    def __init__(self, ids: Sequence[str], num_samples: int = 1) -> None:
        self.ids, self.num_samples = list(ids), num_samples
        self.notices: list[str] = []

    def __len__(self) -> int:
        return len(self.ids) * self.num_samples

    def __getitem__(self, item: int) -> Batch:
        raise NotImplementedError

    def keys(self) -> list[tuple[str, int]]:
        """(id, sample) of every item."""
        return [(name, sample) for name in self.ids for sample in range(self.num_samples)]

    def check_apart(self, output: Path) -> None:
        """Raises ValueError where a run in the folder `output` would write where its images are."""

    def given(self, index: int) -> Tensor | None:
        """The image (C, H, W) that identifies measurement `index`; None where a file of hashes does."""
        return None

    def check(self, operator: Operator, image_shape: tuple[int, int, int], measurement_spec: dict) -> None:
        """Raises ValueError or OSError for the first item that cannot be used, before anything is computed."""


class NoImages(Items):
    """`num_samples` items without an image, for solvers that use no measurement."""

    def __init__(self, num_samples: int = 1) -> None:
        super().__init__(["unconditional"], num_samples)

    def __getitem__(self, item: int) -> Batch:
        return Batch(("unconditional",), (item,), None, None)


def collate(items: Sequence[Batch]) -> Batch:
    """Items → one batch."""
    ids, samples, truth, measured = zip(*items, strict=True)
    return Batch(
        tuple(name for one in ids for name in one),
        tuple(number for one in samples for number in one),
        None if truth[0] is None else torch.cat(truth),
        None if measured[0] is None else torch.cat(measured),
    )


class Batches(Dataset):
    """Whole batches of `items`, one for each group of indices. A batch is the same whichever process computes it, and when."""

    def __init__(self, items: Items, groups: Sequence[Sequence[int]]) -> None:
        self.items, self.groups = items, list(groups)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, number: int) -> Batch:
        return collate([self.items[index] for index in self.groups[number]])


def measurement_hash(measurement_key: str, seed: int, name: str, given: Tensor | None) -> str:
    """Which y an image has: a hash of what is `given`, the operator, the noise and the seed, not of floats that differ by machine.

    Of images these are the pixels, and of numbers from a file, which lie between them, the numbers.
    """
    content = b"" if given is None else _content(given.detach().cpu())
    return blake2b(repr((measurement_key, seed, name)).encode() + content, digest_size=8).hexdigest()


def _content(given: Tensor) -> bytes:
    if not given.is_complex():
        bits = as_bits(given)
        if torch.equal((bits.float() / 127.5 - 1.0).to(given), given):
            return bits.numpy().tobytes()
    return given.contiguous().numpy().tobytes()
