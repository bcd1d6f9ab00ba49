"""Callbacks that record what a training run does. They import Lightning: use them through `Lazy`."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
import torch
from tiny_prior import weights

from diffusion_priors.training.checkpoints import CheckpointFolder
from diffusion_priors.training.journal import TrainingLog


class Record(pl.Callback):
    """For each step: the gradient before clipping, the loss, and the weights afterwards."""

    def __init__(self) -> None:
        self.gradients, self.losses, self.weights = [], [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        self.gradients.append(torch.cat([p.grad.flatten() for p in pl_module.parameters()]).double().numpy().copy())

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.losses.append(outputs["loss"].item())
        self.weights.append(weights(pl_module))


class RecordWithValidation(Record):
    """In addition the weights at the start of each step, and those that each validation uses."""

    def __init__(self) -> None:
        super().__init__()
        self.validated, self.started = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.started.append(weights(pl_module))

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0) -> None:
        self.validated.append(weights(pl_module))


class WeightsByStep(pl.Callback):
    """The weights after each step, by its number."""

    def __init__(self) -> None:
        self.after: dict[int, torch.Tensor] = {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.after[trainer.global_step] = weights(pl_module)


class SaveEachStep(pl.Callback):
    """Save a checkpoint after each validation, and record which ones the folder then holds."""

    def __init__(self, folder: CheckpointFolder) -> None:
        self.folder, self.held = folder, []

    def on_validation_end(self, trainer, pl_module) -> None:
        self.folder.save(trainer)
        self.held.append([step for step, _ in self.folder.all()])


class RecordRows(pl.Callback):
    """The loss of each micro-batch, the learning rate of each step, and the content of metrics.csv when training starts."""

    def __init__(self, path: Path) -> None:
        self.path, self.losses, self.rates, self.at_start = path, [], {}, None

    def on_train_start(self, trainer, pl_module) -> None:
        self.at_start = self.path.read_text()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.rates[trainer.global_step + 1] = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.losses.append(outputs["loss"].item())


class WriteValue(pl.Callback):
    """At each validation write step/8 to the journal, as "value"."""

    def __init__(self, journal: TrainingLog) -> None:
        self.journal = journal

    def on_validation_epoch_end(self, trainer, pl_module) -> None:
        self.journal.write(trainer, trainer.global_step, {"value": trainer.global_step / 8})


class KeepDenoisers(pl.Callback):
    """The denoiser with averaged weights after each step, before Lightning restores the current weights."""

    def __init__(self) -> None:
        self.denoisers = []

    def on_validation_epoch_end(self, trainer, pl_module) -> None:
        self.denoisers.append(pl_module.denoiser())
