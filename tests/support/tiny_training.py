"""A prior that is small enough to train in a test, and batches that are fixed before the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from diffusion_priors.diffusion.networks.unet import UNet
from diffusion_priors.diffusion.preconditioning import Eps, Preconditioning
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.schedules import Linear, Schedule
from diffusion_priors.runs.trainer import TrainerSettings
from diffusion_priors.training.checkpoints import WholeFiles
from diffusion_priors.training.module import PriorTraining, TrainingBatch
from diffusion_priors.training.optimisation import AdamW, ConstantRate
from diffusion_priors.training.weightings import Simple

FLAGS = {
    "image_size": 16,
    "num_channels": 8,
    "channel_mult": [1, 2],
    "attention_resolutions": [],
    "num_head_channels": 8,
    "min_group_channels": 4,
    "learn_sigma": False,
}


def scrambled(network: nn.Module, seed: int = 0) -> nn.Module:
    """Move every weight: layers that start at zero would hide the rest of the network from the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            spread = 0.5 / max(parameter[0].numel(), 1) ** 0.5 if parameter.dim() > 1 else 0.1
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator))
    return network


def tiny_prior(
    flags: dict | None = None,
    schedule: Schedule | None = None,
    preconditioning: Preconditioning | None = None,
    pixel_range: tuple[float, float] = (-1.0, 1.0),
    seed: int = 0,
) -> Prior:
    """A prior of 16 x 16 images, its weights a function of the seed alone."""
    torch.manual_seed(seed)
    network = scrambled(UNet(**FLAGS | (flags or {})), seed)
    return Prior(network, schedule or Linear(10), preconditioning or Eps(), (16, 16), network.flags["in_channels"], pixel_range)


def training_of(prior: Prior, steps: int = 4, lr: float = 1e-2) -> PriorTraining:
    return PriorTraining(prior, Simple(), AdamW(lr), ConstantRate(warmup=0), steps)


def images(count: int, channels: int = 3, seed: int = 0) -> Tensor:
    """(count, C, 16, 16) in [-1, 1], from bytes, with black and white among them."""
    generator = np.random.default_rng(seed)
    drawn = generator.integers(-60, 316, (count, channels, 16, 16)).clip(0, 255)
    return torch.from_numpy(drawn.astype(np.float32)) / 127.5 - 1.0


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


def weights(module: nn.Module) -> Tensor:
    """All parameters, one after the other."""
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()]).clone()


class Keep(pl.Callback):
    """Save a checkpoint at step `at`, at the same point as train.py: after the validation of the step."""

    def __init__(self, path: Path, at: int) -> None:
        self.path, self.at = path, at

    def on_validation_end(self, trainer, pl_module) -> None:
        if trainer.global_step == self.at:
            trainer.save_checkpoint(self.path)
