"""Training data: every item of a run is a function of (seed, its position in the run) alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from diffusion_priors.diffusion.image_random import image_generator
from diffusion_priors.images.find import Found
from diffusion_priors.images.fit import Crop, Fit
from diffusion_priors.runs.machine.cache import cache_folder
from diffusion_priors.runs.memory import check_workers
from diffusion_priors.training.image_store import ImageStore, store_images
from diffusion_priors.training.module import TrainingBatch


class TrainingStream(Dataset):
    """Item k of a run: an image, mirrored or not, its noise and its level.

    Each epoch visits the images in a new order. The levels of a batch are spread evenly over the schedule's `total`
    (Kingma et al. 2021, App. I.1): t = ⌊T · (u + i/B mod 1)⌋ for item i of B, u uniform per batch.
    No item depends on the items before it, so a run can resume at any step, on any number of devices.
    """

    def __init__(self, store: ImageStore, kept: np.ndarray, total: int, batch_size: int, flip: bool, seed: int) -> None:
        self.store, self.kept, self.total, self.batch_size, self.flip, self.seed = store, kept, total, batch_size, flip, seed
        self.order = lru_cache(maxsize=2)(self._order)

    def __getitem__(self, k: int) -> TrainingBatch:
        epoch, place = divmod(k, len(self.kept))
        batch, i = divmod(k, self.batch_size)
        generator = image_generator(self.seed, "training", k)
        x0 = self.store.image(self.kept[self.order(epoch)[place]])
        if self.flip and generator.random() < 0.5:
            x0 = x0.flip(-1)
        z = torch.from_numpy(generator.standard_normal(x0.shape, dtype=np.float32))
        u = image_generator(self.seed, "level", batch).random()
        return TrainingBatch(x0, z, torch.tensor(int(self.total * ((u + i / self.batch_size) % 1.0))))

    def _order(self, epoch: int) -> np.ndarray:
        return image_generator(self.seed, "order", epoch).permutation(len(self.kept))

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "order"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self.order = lru_cache(maxsize=2)(self._order)


class ValidationImages(Dataset):
    """A fixed set: image i with its own noise, at the fraction (i + ½)/N of the schedule's `total` levels."""

    def __init__(self, store: ImageStore, kept: np.ndarray, total: int) -> None:
        self.store, self.kept, self.total = store, kept, total

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, i: int) -> TrainingBatch:
        x0 = self.store.image(self.kept[i])
        generator = image_generator(0, self.store.ids[self.kept[i]], "validation")
        z = torch.from_numpy(generator.standard_normal(x0.shape, dtype=np.float32))
        return TrainingBatch(x0, z, torch.tensor(int(self.total * (i + 0.5) / len(self))))


class Positions(Sampler[list[int]]):
    """The items of each batch of this rank, from optimiser step `first` to `steps`.

    The `batch_size` items of a step are split into `accumulate` micro-batches, and each of these among `world` ranks.
    The gradient of a step is therefore the same for every split. The length counts from step 0, as Lightning does.
    """

    def __init__(self, first: int, steps: int, batch_size: int, accumulate: int = 1, rank: int = 0, world: int = 1) -> None:
        self.first, self.steps, self.batch_size, self.accumulate, self.rank, self.world = first, steps, batch_size, accumulate, rank, world

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        share = self.batch_size // (self.accumulate * self.world)
        for step in range(self.first, self.steps):
            for micro_batch in range(self.accumulate):
                start = step * self.batch_size + (micro_batch * self.world + self.rank) * share
                yield list(range(start, start + share))


class ImageFolder(pl.LightningDataModule):
    """The images in a folder (searched recursively) or a zip, decoded once into `cache`.

    The validation images are those of `validation`, another folder or zip. Without one, `holdout` images of `root`,
    at most a fifth of them, are held out; their names decide which. `flip` mirrors half of the training images.
    `enlarge` accepts images smaller than the prior's size as well. `workers` processes prepare the batches.

    Raises ValueError for a number out of bounds.
    """

    def __init__(
        self,
        root: str,
        validation: str | None = None,
        holdout: int = 64,
        flip: bool = True,
        enlarge: bool = False,
        fit: Fit | None = None,
        cache: str | None = None,
        workers: int = 0,
    ) -> None:
        super().__init__()
        if holdout < 1:
            raise ValueError(f"at least one image must be held out for validation, got {holdout}; set data.holdout")
        check_workers(workers, "data.workers")
        self.root, self.validation, self.holdout, self.flip, self.enlarge, self.workers = root, validation, holdout, flip, enlarge, workers
        self.fit = fit or Crop()
        self.cache = Path(cache).expanduser() if cache else cache_folder()

    def read(self, channels: int, size: tuple[int, int]) -> None:
        """Find and decode the images. Raises what `store_images` raises, and ValueError for a single image without `validation`."""
        self.store = store_images(self.root, channels, size, self.fit, self.cache, self.enlarge)
        if self.validation is not None:
            self.held = store_images(self.validation, channels, size, self.fit, self.cache, self.enlarge)
            self.training, self.fixed = np.arange(len(self.store)), np.arange(len(self.held))
            return
        if len(self.store) < 2:
            raise ValueError(f"{self.root} has one image, too few to train and to validate; set data.validation to another folder")
        names = [blake2b(os.fsencode(name), digest_size=8).digest() for name in self.store.ids]
        order = np.array(sorted(range(len(names)), key=names.__getitem__))
        count = max(1, min(self.holdout, len(order) // 5))
        self.held, self.fixed, self.training = self.store, np.sort(order[:count]), np.sort(order[count:])

    def check_apart(self, output: Path) -> None:
        """Raises ValueError where a run in the folder `output` would write where the images are."""
        roots = [Path(root).expanduser() for root in (self.root, self.validation) if root is not None]
        Found(folders=[root for root in roots if root.is_dir()]).check_apart(output)

    @property
    def notices(self) -> list[str]:
        """Lines about folders of images that were not searched."""
        return self.store.notices + ([] if self.held is self.store else self.held.notices)

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """(name, reason) for every image that could not be used."""
        return self.store.skipped + ([] if self.held is self.store else self.held.skipped)

    def plan(self, total: int, steps: int, batch_size: int, accumulate: int, seed: int) -> None:
        """Set the run to serve: `steps` optimiser steps of `batch_size` images, over a schedule of `total` levels."""
        self.total, self.steps, self.batch_size, self.accumulate, self.seed = total, steps, batch_size, accumulate, seed

    def held_out(self, count: int) -> list[tuple[str, torch.Tensor]]:
        """The first `count` validation images, (id, (C, H, W) in [-1, 1])."""
        return [(self.held.ids[i], self.held.image(i)) for i in self.fixed[:count]]

    def train_dataloader(self) -> DataLoader:
        trainer = self.trainer
        positions = Positions(trainer.global_step, self.steps, self.batch_size, self.accumulate, trainer.global_rank, trainer.world_size)
        stream = TrainingStream(self.store, self.training, self.total, self.batch_size, self.flip, self.seed)
        return self._loader(stream, batch_sampler=positions, num_workers=self.workers, persistent_workers=self.workers > 0)

    def val_dataloader(self) -> DataLoader:
        return self._loader(ValidationImages(self.held, self.fixed, self.total), batch_size=self.batch_size)

    def _loader(self, dataset: Dataset, **options: object) -> DataLoader:
        return DataLoader(dataset, pin_memory=self.trainer.strategy.root_device.type == "cuda", collate_fn=collate, **options)


def collate(items: Sequence[TrainingBatch]) -> TrainingBatch:
    """A list of items → one batch."""
    return TrainingBatch(*(torch.stack(values) for values in zip(*items, strict=True)))
