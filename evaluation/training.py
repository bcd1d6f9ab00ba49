"""One training run from built parts to an exported prior."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only

from diffusion.data import PictureFolder
from diffusion.denoiser import Denoiser
from diffusion.optimisation import AdamW, LearningRate
from diffusion.priors import Prior
from diffusion.training import PriorTraining
from diffusion.weightings import Weighting
from evaluation.export import Export
from evaluation.loggers import NoLogger, Wandb
from evaluation.trainer import TrainerSettings
from evaluation.training_callbacks import Checkpoints, NotFinite, TrainingLog, Validate, Watch, average
from evaluation.training_folder import TrainingFolder
from evaluation.validation import Validation, denoising_psnr

__all__ = ["NotFinite", "Training"]

FAILED, TIMED_OUT = 1, 124


@dataclass
class Training:
    """The parts of a run. `check` refuses what cannot work before anything is computed; `run` does the work.

    The network of `prior` is trained from the weights it has for `steps` optimiser steps of `batch_size` pictures, over
    all devices and turns together. `ema` is the decay of the averaged weights, which are validated and exported;
    `clip` the largest norm of a step's gradient, or None. `max_hours` ends a run early, to be gone on with later.
    """

    prior: Prior
    data: PictureFolder
    weighting: Weighting
    optimiser: AdamW
    lr_schedule: LearningRate
    trainer: TrainerSettings
    validation: Validation
    export: Export
    logger: NoLogger | Wandb
    output: Path
    steps: int = 10000
    batch_size: int = 16
    ema: float = 0.999
    clip: float | None = 1.0
    variance_weight: float = 1e-3
    seed: int = 0
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    log_every: int = 50
    max_hours: float | None = None
    overwrite: bool = False
    stopped: tuple[str, int] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "checkpoint_every", "keep_checkpoints", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}; set {name}")
        if not 0.0 <= self.ema < 1.0:
            raise ValueError(f"ema is the decay of the average, in [0, 1), got {self.ema}; set ema")
        for name in ("clip", "max_hours"):
            value = getattr(self, name)
            if value is not None and not value > 0.0:
                raise ValueError(f"{name} must be positive, got {value}; set {name}, or {name}=null for none")
        self.folder = TrainingFolder(self.output, self.keep_checkpoints)

    def check(self, config: dict) -> None:
        """Raises ValueError or OSError, in one line, for parts that do not go together and pictures that do not do.

        `config` is the resolved configuration; a run in the same folder with another one is not gone on with.
        """
        self.found = None if self.overwrite else self.folder.find(config, self.steps)
        shares = self.trainer.world * self.trainer.accumulate
        if self.batch_size % shares:
            raise ValueError(
                f"batch_size={self.batch_size} cannot be shared evenly among {self.trainer.world} devices in {self.trainer.accumulate} turns; "
                f"set batch_size to a multiple of {shares}"
            )
        self.validation.check(self.prior)
        self.data.read(self.prior.channels, self.prior.size)
        self.data.plan(len(self.prior.levels), self.steps, self.batch_size, self.trainer.accumulate, self.seed)

    def title(self, prior: str) -> str:
        """What is about to happen, in a few lines."""
        parameters = sum(p.numel() for p in self.prior.network.parameters())
        lines = [f"{prior} · {parameters:,} parameters · {len(self.data.training):,} pictures, {len(self.data.fixed)} held out · {self.steps} steps of {self.batch_size}"]
        if self.data.skipped:
            lines.append(f"skipped {len(self.data.skipped)} pictures (all in {self.folder.skipped}):")
            lines += [f"  {name}: {reason}" for name, reason in self.data.skipped[:5]]
        if self.found is not None:
            lines += [f"damaged and left out: {path}" for path in self.found.damaged]
            lines.append(f"going on from {self.found.path}")
        return "\n".join(lines)

    @property
    def finished(self) -> bool:
        """Whether an earlier run did all of this."""
        return self.found is not None and self.found.step == self.steps and self.folder.exported

    def run(self, config: dict, text: str) -> None:
        """Train, from the newest good checkpoint where there is one; then export, unless told to stop before the end.

        `text` is what config.yaml will hold. Afterwards `stopped` is None, or says why the run ended early, with an
        exit code. Raises NotFinite where the loss does.
        """
        if self.finished:
            return
        first = rank_zero_only.rank == 0
        if first:
            self.folder.open(text, self.data.skipped, self.overwrite)
        self.trainer.prepare(self.prior.network)
        module = PriorTraining(
            self.prior, self.weighting, self.optimiser, self.lr_schedule, self.steps, self.variance_weight, self.seed
        )
        watch = Watch()
        names = [f"denoising_psnr/t{t}" for t in self.validation.levels] + ["restoration_psnr", "val_loss"]
        journal = TrainingLog(self.folder.metrics, names, self.steps, self.batch_size, self.log_every)
        validate = Validate(self.validation, self._held(), self.folder.validation, journal)
        seconds = None if self.max_hours is None else 3600.0 * self.max_hours
        saving = Checkpoints(self.folder.checkpoints, watch, self.checkpoint_every, self.validation.every, self.steps, seconds)
        callbacks = [watch, journal, validate, average(self.ema), saving]
        code = FAILED
        try:
            loggers = self.logger(self.output, config) if first else []
            trainer = self.trainer.trainer(callbacks, self.steps, self.validation.every, self.clip, loggers)
            trainer.fit(module, datamodule=self.data, ckpt_path=self.found and str(self.found.path), weights_only=True)
            if trainer.is_global_zero:
                self._conclude(trainer, module, validate, saving.stopped_by)
            code = self.stopped[1] if self.stopped else 0
        except SystemExit as error:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from error
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                raise ValueError(self._too_large()) from error
            raise
        finally:
            self.logger.finish(code)

    def _conclude(self, trainer: pl.Trainer, module: PriorTraining, validate: Validate, stopped_by: str | None) -> None:
        if stopped_by is not None:
            code = {"SIGINT": 130, "SIGTERM": 143, "SIGUSR1": 138}.get(stopped_by, TIMED_OUT)
            self.stopped = (f"stopped by {stopped_by} at step {trainer.global_step} of {self.steps}; the same line goes on from there", code)
            return
        prior = self.prior.with_network(deepcopy(module.network))
        if self.steps % self.validation.every:
            validate.keep(trainer, self.validation(Denoiser(prior.with_network(deepcopy(module.network))), prior, self._held()))
        self._export(prior.with_network(prior.network.cpu().float()), validate.journal.seconds_trained)

    def _export(self, prior: Prior, seconds: float) -> None:
        held = self._held()[: self.validation.denoise]

        def measure(one: Prior) -> dict[str, float]:
            if not held:
                return {}
            found = denoising_psnr(Denoiser(one), [one.levels[t] for t in self.validation.levels], held, self.validation.batch_size)
            return {f"t{t}": round(psnr, 3) for t, psnr in zip(self.validation.levels, found, strict=True)}

        training = {
            "pictures": len(self.data.training),
            "steps": self.steps,
            "batch_size": self.batch_size,
            "pictures_seen": self.steps * self.batch_size,
            "optimiser": f"AdamW {self.optimiser.lr:g}, {type(self.lr_schedule).__name__.lower()} learning rate, EMA {self.ema:g}",
            "weighting": type(self.weighting).__name__,
            "precision": self.trainer.precision,
            "minutes": round(seconds / 60.0, 1),
        }
        self.export(self.folder.prior, prior, training, measure)

    def _held(self) -> list[tuple[str, torch.Tensor]]:
        return self.data.held_out(max(self.validation.denoise, self.validation.restore))

    def _too_large(self) -> str:
        turns = f"{self.trainer.accumulate} turns" if self.trainer.accumulate > 1 else "one turn"
        return (
            f"out of memory at batch_size={self.batch_size} in {turns}; raise trainer.accumulate, which changes nothing but memory "
            "and time, or lower batch_size"
        )

    def outcome(self) -> str:
        """Where everything is."""
        again = "already trained; more steps with a larger steps=\n" if self.finished else ""
        return f"{again}prior:   {self.folder.prior}\nfigures: {self.folder.metrics}\nuse it: python sample.py prior={self.folder.prior}"
