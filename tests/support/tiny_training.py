"""Training of a tiny prior in a test, on batches that are fixed before the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from tiny_prior import images
from torch import Tensor

from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.runs.trainer import TrainerSettings
from diffusion_priors.training.checkpoints import WholeFiles
from diffusion_priors.training.module import PriorTraining, TrainingBatch
from diffusion_priors.training.optimisation import AdamW, ConstantRate
from diffusion_priors.training.weightings import Simple


def training_of(prior: Prior, steps: int = 4, lr: float = 1e-2) -> PriorTraining:
    return PriorTraining(prior, Simple(), AdamW(lr), ConstantRate(warmup=0), steps)


def batch_of(x0: Tensor, index: Sequence[int], seed: int = 0) -> TrainingBatch:
    z = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed))
    return TrainingBatch(x0, z, torch.tensor(index))


def batches(count: int, size: int = 2, total: int = 10, channels: int = 3, seed: int = 0) -> list[TrainingBatch]:
    drawn = np.random.default_rng(seed).integers(0, total, (count, size))
    return [batch_of(images(size, channels, 100 * seed + i), drawn[i].tolist(), 100 * seed + i) for i in range(count)]


class Batches(pl.LightningDataModule):
    """Serve the batches of `training` in order, from the step at which the run resumes, and always all of `validation`."""

    def __init__(self, training: Sequence[TrainingBatch], validation: Sequence[TrainingBatch] = ()) -> None:
        super().__init__()
        self.training, self.validation = training, validation or training[:1]

    def train_dataloader(self) -> Loader:
        return Loader(self.training, self.trainer.global_step * self.trainer.accumulate_grad_batches)

    def val_dataloader(self) -> Loader:
        return Loader(self.validation, 0)


class Loader:
    """The items from `first` on. The length counts all of them, as in `Positions`."""

    def __init__(self, items: Sequence, first: int) -> None:
        self.items, self.first = items, first

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator:
        return iter(self.items[self.first :])


def fit(
    module: PriorTraining,
    data: Batches,
    callbacks: Sequence[pl.Callback] = (),
    validate_every: int = 1000,
    clip: float | None = None,
    accumulate: int = 1,
    resume: Path | None = None,
) -> pl.Trainer:
    """Train `module` for its number of steps as train.py does."""
    trainer = TrainerSettings("cpu").training(callbacks, module.steps, validate_every, accumulate, clip, [], [WholeFiles()])
    trainer.fit(module, datamodule=data, ckpt_path=resume and str(resume), weights_only=True)
    return trainer


class Keep(pl.Callback):
    """Save a checkpoint at step `at`, at the same point as train.py: after the validation of the step."""

    def __init__(self, path: Path, at: int) -> None:
        self.path, self.at = path, at

    def on_validation_end(self, trainer, pl_module) -> None:
        if trainer.global_step == self.at:
            trainer.save_checkpoint(self.path)
