"""One training run from built parts to an exported prior."""

from __future__ import annotations

import os
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from diffusion_priors.diffusion.checkpoints import load_strictly
from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.runs.files import write_whole
from diffusion_priors.runs.loggers import Dashboard
from diffusion_priors.runs.memory import activation_bytes, free_bytes
from diffusion_priors.runs.signals import CODES, ToldToStop
from diffusion_priors.runs.trainer import TrainerSettings
from diffusion_priors.training.callbacks import Checkpoints, NotFinite, TrainingLog, Validate, Watch, average
from diffusion_priors.training.checkpoints import WholeFiles
from diffusion_priors.training.data import ImageFolder
from diffusion_priors.training.export import Export
from diffusion_priors.training.folder import TrainingFolder
from diffusion_priors.training.module import PriorTraining
from diffusion_priors.training.optimisation import AdamW, LearningRate
from diffusion_priors.training.validation import Validation, denoising_psnr
from diffusion_priors.training.weightings import Weighting

__all__ = ["NotFinite", "Training"]

FAILED, TIMED_OUT = 1, 124


@dataclass
class Training:
    """The parts of a run. `check` refuses what cannot work before anything is computed; `run` does the work.

    The network of `prior` is trained from the weights it has for `steps` optimiser steps of `batch_size` images, over
    all devices and `accumulate` turns together. `ema` is the decay of the averaged weights, which are validated and exported;
    `clip` the largest norm of a step's gradient, or None. `max_hours` ends a run early, to be gone on with later.
    """

    prior: Prior
    data: ImageFolder
    weighting: Weighting
    optimiser: AdamW
    lr_schedule: LearningRate
    trainer: TrainerSettings
    validation: Validation
    export: Export
    logger: Dashboard
    output: Path
    steps: int = 10000
    batch_size: int = 16
    accumulate: int = 1
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
    finished: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "checkpoint_every", "keep_checkpoints", "log_every"):
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
        """Raises ValueError or OSError, in one line, for parts that do not go together and images that do not do.

        `config` is the resolved configuration; a run in the same folder with another one is not gone on with.
        """
        self.found = None if self.overwrite else self.folder.find(config, self.steps)
        self.finished = self.found is not None and self.found.step == self.steps and self.folder.exported(self.steps)
        shares = self.trainer.world * self.accumulate
        if self.batch_size % shares:
            raise ValueError(
                f"batch_size={self.batch_size} cannot be shared evenly ({self.trainer.world} devices, {self.accumulate} turns); "
                f"set batch_size to a multiple of {shares}"
            )
        self.validation.check(self.prior)
        self._check_memory(self.batch_size // shares)
        self.data.read(self.prior.channels, self.prior.size)
        self.data.plan(len(self.prior.levels), self.steps, self.batch_size, self.accumulate, self.seed)

    def _check_memory(self, share: int) -> None:
        """On a CPU nothing is raised when memory ends: the process is. So a batch that cannot fit is refused before."""
        if self.trainer.on_gpu:
            return
        free = free_bytes()
        needed = share * activation_bytes(self.prior.network.requires_grad_(True), (self.prior.channels, *self.prior.size))
        if free is not None and needed > free:
            raise ValueError(f"{share} images at once need {needed / 2**30:.0f} GiB, {free / 2**30:.0f} GiB are free; {self._smaller()}")

    @property
    def first(self) -> bool:
        """Whether this is the process that speaks and writes."""
        return rank_zero_only.rank == 0

    def title(self, prior: str) -> str:
        """What is about to happen, in a few lines."""
        parameters = sum(p.numel() for p in self.prior.network.parameters())
        images = f"{len(self.data.training):,} images, {len(self.data.fixed)} held out"
        lines = [f"{prior} · {parameters:,} parameters · {images} · {self.steps} steps of {self.batch_size}"]
        if self.data.skipped:
            lines.append(f"skipped {len(self.data.skipped)} images (all in {self.folder.skipped}):")
            lines += [f"  {os.fsencode(name).decode(errors='replace')}: {reason}" for name, reason in self.data.skipped[:5]]
        if self.found is not None:
            lines += [f"damaged and left out: {path}" for path in self.found.damaged]
            lines.append(f"going on from {self.found.path}")
        return "\n".join(lines)

    def run(self, config: dict, text: str) -> None:
        """Train, from the newest good checkpoint where there is one; then export, unless told to stop before the end.

        `text` is what config.yaml will hold. Afterwards `stopped` is None, or says why the run ended early, with an
        exit code. Where an earlier run did all of this, `finished`, nothing is done. Raises NotFinite where the
        loss is no longer a number.
        """
        if self.finished:
            return
        if self.first:
            self.folder.open(text, self.data.skipped, self.overwrite)
        if self.found is None or self.found.step < self.steps:
            self._fit(config)
        if self.first and self.stopped is None:
            self._export()

    def _fit(self, config: dict) -> None:
        self.trainer.prepare(self.prior.network)
        module = PriorTraining(self.prior, self.weighting, self.optimiser, self.lr_schedule, self.steps, self.variance_weight, self.seed)
        code = FAILED
        try:
            loggers = self.logger(self.output, config) if self.first else []
            *callbacks, checkpoints = self._callbacks()
            trainer = self.trainer.training(
                [*callbacks, checkpoints], self.steps, self.validation.every, self.accumulate, self.clip, loggers, [WholeFiles()]
            )
            with checkpoints.listener.listening():
                trainer.fit(module, datamodule=self.data, ckpt_path=self.found and str(self.found.path), weights_only=True)
            code = 0
        except ToldToStop as error:
            code = CODES.get(str(error), TIMED_OUT)
            if self.first:
                self.stopped = (f"stopped by {error} at step {trainer.global_step} of {self.steps}; the same line goes on from there", code)
        except NotFinite as error:
            raise NotFinite(f"{error}; {self._after_bad_loss()}") from error
        except MisconfigurationException as error:  # what Lightning will not do on this machine
            raise ValueError(f"{str(error).splitlines()[0]}; choose another trainer") from error
        except SystemExit as error:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from error
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                raise ValueError(f"out of memory; {self._smaller()}") from error
            raise
        finally:
            self.logger.finish(code)

    def _callbacks(self) -> list[pl.Callback]:
        """In the order they have to run: validation looks at averaged weights, so it comes before the average takes them out."""
        watch = Watch()
        names = [f"denoising_psnr/t{t}" for t in self.validation.levels] + ["restoration_psnr", "val_loss"]
        journal = TrainingLog(self.folder.metrics, names, self.steps, self.batch_size, self.log_every)
        validate = Validate(self.validation, self._held(), self.folder.validation, journal)
        seconds = None if self.max_hours is None else 3600.0 * self.max_hours
        saving = Checkpoints(self.folder.checkpoints, watch, self.checkpoint_every, self.validation.every, self.steps, seconds)
        return [watch, journal, validate, average(self.ema), saving]

    def _export(self) -> None:
        """The averaged weights of the last step's checkpoint → a prior's folder."""
        content = self.folder.checkpoints.read(self.steps)
        prior = self.prior.with_network(deepcopy(self.prior.network).cpu())
        load_strictly(prior.network, content["state_dict"], self.folder.checkpoints.root)
        held = self._held()[: self.validation.denoise]

        def measure(one: Prior) -> dict[str, float]:
            if not held:
                return {}
            found = denoising_psnr(Denoiser(one), [one.levels[t] for t in self.validation.levels], held, self.validation.batch_size)
            return {f"t{t}": round(psnr, 3) for t, psnr in zip(self.validation.levels, found, strict=True)}

        training = {
            "images": len(self.data.training),
            "steps": self.steps,
            "batch_size": self.batch_size,
            "images_seen": self.steps * self.batch_size,
            "optimiser": f"AdamW {self.optimiser.lr:g}, {type(self.lr_schedule).__name__.lower()} learning rate, EMA {self.ema:g}",
            "weighting": type(self.weighting).__name__,
            "precision": self.trainer.precision,
            "minutes": round(content["callbacks"]["TrainingLog"]["seconds"] / 60.0, 1),
        }
        last = self.folder.validation / f"step-{self.steps:08d}" / "samples.png"
        if last.exists():
            write_whole(self.folder.prior / last.name, lambda stream: stream.write(last.read_bytes()))
        self.export(self.folder.prior, prior, training, measure)

    def _held(self) -> list[tuple[str, torch.Tensor]]:
        return self.data.held_out(max(self.validation.denoise, self.validation.restore))

    def _smaller(self) -> str:
        return f"raise accumulate, which changes nothing but memory and time, or lower batch_size={self.batch_size}"

    def _after_bad_loss(self) -> str:
        """What to do when the loss has gone."""
        good = self.folder.checkpoints.all()
        if not good:
            return "lower optimiser.lr or clip; there was no checkpoint yet"
        return (
            f"the last good checkpoint is kept; go on from it with prior={good[0][1]}, a lower optimiser.lr or clip and another output_dir"
        )

    def outcome(self) -> str:
        """Where everything is."""
        again = "already trained; more steps with a larger steps=\n" if self.finished else ""
        return f"{again}prior:   {self.folder.prior}\nfigures: {self.folder.metrics}\nuse it:  python sample.py prior={self.folder.prior}"
