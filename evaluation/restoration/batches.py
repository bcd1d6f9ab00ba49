"""The images of a run, one item per image and sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.utils.data import Dataset

from diffusion_priors.images.io import Fit, find_images, image_ids, read_image


class Batch(NamedTuple):
    """B items. `truth` (B, C, H, W) or `measured` (B, C', H', W') in [-1, 1]; both are None where nothing is given."""

    ids: tuple[str, ...]
    samples: tuple[int, ...]
    truth: Tensor | None
    measured: Tensor | None


class Images(Dataset):
    """Items (image, sample) in order: image 0 sample 0, image 0 sample 1, ….

    `kind` is the field of Batch that the files fill, "truth" or "measured"; images are fitted to `size`.
    Raises FileNotFoundError or ValueError where an image is missing, cannot be read or is given twice.
    """

    def __init__(self, where: str | Sequence[str], kind: str, channels: int, size: tuple[int, int], fit: Fit, num_samples: int = 1) -> None:
        self.paths: list[Path] = find_images(where)
        self.ids = image_ids(self.paths)
        self.kind, self.channels, self.size, self.fit, self.num_samples = kind, channels, size, fit, num_samples

    def __len__(self) -> int:
        return len(self.paths) * self.num_samples

    def __getitem__(self, item: int) -> Batch:
        index, sample = divmod(item, self.num_samples)
        empty = Batch((self.ids[index],), (sample,), None, None)
        return empty._replace(**{self.kind: self.read(index)[None]})

    def read(self, index: int) -> Tensor:
        return read_image(self.paths[index], self.channels, self.size, self.fit)

    def only(self, kept: Sequence[int]) -> Self:
        """Take these of the images, by their index."""
        self.paths, self.ids = [self.paths[i] for i in kept], [self.ids[i] for i in kept]
        return self

    def check(self) -> None:
        """Read every image once, so that a bad one is told before anything is computed."""
        for index in range(len(self.paths)):
            self.read(index)


class Nothing(Dataset):
    """`num_samples` items without an image, for solvers that look at none."""

    kind = "nothing"

    def __init__(self, num_samples: int = 1) -> None:
        self.num_samples = num_samples
        self.ids = ["unconditional"]

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, item: int) -> Batch:
        return Batch(("unconditional",), (item,), None, None)

    def check(self) -> None:
        pass


def collate(items: list[Batch]) -> Batch:
    """Items → one batch."""
    ids, samples, truth, measured = zip(*items, strict=True)
    return Batch(
        tuple(name for one in ids for name in one),
        tuple(number for one in samples for number in one),
        None if truth[0] is None else torch.cat(truth),
        None if measured[0] is None else torch.cat(measured),
    )


class Batches(Dataset):
    """Whole batches of `items`, one for each group of indices: a batch is the same whoever computes it, and whenever."""

    def __init__(self, items: Dataset, groups: Sequence[Sequence[int]]) -> None:
        self.items, self.groups = items, list(groups)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, number: int) -> Batch:
        return collate([self.items[index] for index in self.groups[number]])
