"""One training run, from built components to an exported prior."""

from __future__ import annotations

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
from diffusion_priors.evaluation.reporting.format import counted
from diffusion_priors.runs.exit_codes import FAILED, OF_SIGNAL, TIMED_OUT
from diffusion_priors.runs.files import write_whole
from diffusion_priors.runs.loggers import Dashboard
from diffusion_priors.runs.memory import activation_bytes, free_bytes
from diffusion_priors.runs.printable import command_of, printable
from diffusion_priors.runs.signals import Listener, StopRequested
from diffusion_priors.runs.trainer import TrainerSettings
from diffusion_priors.training.callbacks import Checkpoints, NotFinite, Validate, Watch, average
from diffusion_priors.training.checkpoints import WholeFiles
from diffusion_priors.training.data import ImageFolder
from diffusion_priors.training.export import Export
from diffusion_priors.training.folder import TrainingFolder
from diffusion_priors.training.journal import TrainingLog
from diffusion_priors.training.module import PriorTraining, training_levels
from diffusion_priors.training.optimisation import AdamW, LearningRate
from diffusion_priors.training.validation import Validation, denoising_psnr
from diffusion_priors.training.weightings import Weighting

__all__ = ["NotFinite", "Training"]


@dataclass
class Training:
    """The components of a run. `check` refuses settings that cannot work before anything is computed; `run` does the work.

    The network of `prior` is trained from its present weights for `steps` optimiser steps of `batch_size` images, summed
    over all devices and the `accumulate` micro-batches. `ema` is the decay of the averaged weights, which are validated
    and exported. `clip` is the largest norm of a step's gradient, or None. `max_hours` stops a run early; it can be resumed.
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
            raise ValueError(f"ema is the decay of the average and must lie in [0, 1), got {self.ema}; set ema")
        for name in ("clip", "max_hours"):
            value = getattr(self, name)
            if value is not None and not value > 0.0:
                raise ValueError(f"{name} must be positive, got {value}; set {name}, or {name}=null to disable it")
        self.folder = TrainingFolder(self.output, self.keep_checkpoints)

    def check(self, config: dict) -> None:
        """Raises a one-line ValueError or OSError for components that do not fit together, and for unusable images.

        `config` is the resolved configuration. A run in the same folder with another configuration is not resumed.
        """
        self.found = None if self.overwrite else self.folder.find(config, self.steps)
        self.finished = self.found is not None and self.found.step == self.steps and self.folder.exported(self.steps)
        shares = self.trainer.world * self.accumulate
        if self.batch_size % shares:
            raise ValueError(
                f"batch_size={self.batch_size} cannot be split evenly ({self.trainer.world} devices, {self.accumulate} micro-batches); "
                f"set batch_size to a multiple of {shares}"
            )
        self.validation.check(self.prior)
        self.trainer.recompute(self.prior.network)
        self._check_memory(self.batch_size // shares)
        self.data.check_apart(self.output)
        self.data.read(self.prior.channels, self.prior.size)
        self.data.plan(len(training_levels(self.prior)), self.steps, self.batch_size, self.accumulate, self.seed)

    def _check_memory(self, share: int) -> None:
        """Raises ValueError for a batch that cannot fit. On a CPU the system kills the process instead of raising an error."""
        if self.trainer.on_gpu:
            return
        free = free_bytes()
        needed = share * activation_bytes(self.prior.network.requires_grad_(True), (self.prior.channels, *self.prior.size))
        if free is not None and needed > free:
            advice = self._advice_on_memory()
            raise ValueError(f"{counted(share, 'image')} at once need {needed / 2**30:.0f} GiB, {free / 2**30:.0f} GiB are free; {advice}")

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and writes."""
        return rank_zero_only.rank == 0

    def title(self, prior: str) -> str:
        """The lines to print before the run starts."""
        parameters = sum(p.numel() for p in self.prior.network.parameters())
        images = f"{len(self.data.training):,} images, {len(self.data.fixed)} held out"
        lines = [f"{prior} · {parameters:,} parameters · {images} · {self.steps} steps of {self.batch_size}"]
        lines += [*self.data.notices, *self.trainer.notices]
        if self.data.skipped:
            lines.append(f"skipped {counted(len(self.data.skipped), 'image')} (all in {self.folder.skipped}):")
            lines += [f"  {printable(name, 100)}: {printable(reason, 200)}" for name, reason in self.data.skipped[:5]]
        if self.found is not None:
            lines += [f"damaged and ignored: {path}" for path in self.found.damaged]
            lines.append(f"resuming from {self.found.path}")
        return "\n".join(lines)

    def run(self, config: dict, text: str) -> None:
        """Train, from the newest intact checkpoint if there is one, then export the prior unless a signal stopped the run.

        `text` is the content of config.yaml. Afterwards `stopped` is None, or holds the reason why the run ended early
        and its exit code. If the run is already `finished`, nothing is done. Raises NotFinite for a loss that is not finite.
        """
        if self.finished:
            return
        listener = Listener()
        with listener.listening():
            if self.first:
                self.folder.open(text, self.data.skipped, self.overwrite)
            if self.found is None or self.found.step < self.steps or self._missed() is not None:
                self._fit(config, listener)
            if self.first and self.stopped is None:
                self._export()

    def _missed(self) -> int | None:
        """The step of the checkpoint to resume from, where its validation is due and was not finished."""
        step = self.found.step if self.found else 0
        due = step == self.steps or (step > 0 and step % self.validation.every == 0)
        return step if due and not self.folder.validated(step) else None

    def _fit(self, config: dict, listener: Listener) -> None:
        self.trainer.prepare(self.prior.network)
        module = PriorTraining(self.prior, self.weighting, self.optimiser, self.lr_schedule, self.steps, self.variance_weight, self.seed)
        code = FAILED
        try:
            loggers = self.logger(self.output, config) if self.first else []
            callbacks = self._callbacks(listener)
            trainer = self.trainer.training(
                callbacks, self.steps, self.validation.every, self.accumulate, self.clip, loggers, [WholeFiles()]
            )
            resumed = {"datamodule": self.data, "ckpt_path": self.found and str(self.found.path), "weights_only": True}
            if self._missed() is not None:
                trainer.validate(module, verbose=False, **resumed)
            if self.found is None or self.found.step < self.steps:
                trainer.fit(module, **resumed)
            code = 0
        except StopRequested as error:
            code = OF_SIGNAL.get(str(error), TIMED_OUT)
            if self.first:
                step = trainer.global_step or (self.found.step if self.found else 0)
                self.stopped = (f"stopped by {error} at step {step} of {self.steps}; run the same command to resume", code)
        except NotFinite as error:
            raise NotFinite(f"{error}; {self._advice_on_bad_loss()}") from error
        except MisconfigurationException as error:  # a setting that Lightning refuses on this machine
            raise ValueError(f"{str(error).splitlines()[0]}; choose another trainer") from error
        except SystemExit as error:  # Lightning turns Ctrl-C into it
            raise KeyboardInterrupt from error
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                raise ValueError(f"out of memory; {self._advice_on_memory()}") from error
            raise
        finally:
            self.logger.finish(code)

    def _callbacks(self, listener: Listener) -> list[pl.Callback]:
        """In the order in which they have to run: validation sees the averaged weights, so it precedes the averaging callback."""
        watch = Watch()
        names = [f"denoising_psnr/t{t}" for t in self.validation.levels] + ["restoration_psnr", "val_loss"]
        journal = TrainingLog(self.folder.metrics, names, self.steps, self.batch_size, self.log_every)
        seconds = None if self.max_hours is None else 3600.0 * self.max_hours
        every = (self.checkpoint_every, self.validation.every)
        saving = Checkpoints(self.folder.checkpoints, watch, *every, self.steps, seconds, listener)
        validate = Validate(self.validation, self._held(), self.folder.validation, journal, saving.poll, self._missed())
        if self.first:
            journal.drop_rows_after(self.found.step if self.found else 0)
        return [watch, journal, validate, average(self.ema), saving]

    def _export(self) -> None:
        """Write the averaged weights of the last checkpoint as a prior's folder."""
        content = self.folder.checkpoints.read(self.steps)
        prior = self.prior.with_network(deepcopy(self.prior.network).cpu())
        load_strictly(prior.network, content["state_dict"], self.folder.checkpoints.root)
        held = self._held()[: self.validation.denoise]

        def measure(prior: Prior) -> dict[str, float]:
            if not held:
                return {}
            levels = self.validation.denoising_levels(prior)
            found = denoising_psnr(Denoiser(prior), levels, held, self.validation.batch_size)
            return {f"t{t}": round(psnr, 3) for t, psnr in zip(self.validation.levels, found, strict=True)}

        training = {
            "images": len(self.data.training),
            "steps": self.steps,
            "batch_size": self.batch_size,
            "images_seen": self.steps * self.batch_size,
            "optimiser": f"AdamW {self.optimiser.lr:g}, {self.lr_schedule.name} learning rate, EMA {self.ema:g}",
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

    def _advice_on_memory(self) -> str:
        return f"raise accumulate or set trainer.checkpointing=true, which give the same result, or lower batch_size={self.batch_size}"

    def _advice_on_bad_loss(self) -> str:
        good = self.folder.checkpoints.all()
        if not good:
            return "no checkpoint was written yet; lower optimiser.lr or clip"
        changes = "a lower optimiser.lr or clip, and another output_dir"
        return f"the last intact checkpoint is kept; continue from it with prior={good[0][1]}, {changes}"

    def outcome(self) -> str:
        """The lines to print at the end: where the results are."""
        note = "already trained; raise steps to train for longer\n" if self.finished else ""
        return (
            f"{note}prior:   {self.folder.prior}\nmetrics: {self.folder.metrics}\nuse it:  {command_of('sample')} prior={self.folder.prior}"
        )
