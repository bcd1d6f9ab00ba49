"""Lightning callbacks of a training run: stop on a bad loss, validate, save checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from tqdm import tqdm

from diffusion_priors.runs.files import write_whole
from diffusion_priors.runs.loggers import log_image
from diffusion_priors.runs.signals import Listener, StopRequested
from diffusion_priors.training.checkpoints import CheckpointFolder
from diffusion_priors.training.journal import TrainingLog, stepped
from diffusion_priors.training.validation import Findings, Validation


class NotFinite(RuntimeError):
    """The loss or the weights are not finite."""


def average(decay: float) -> EMAWeightAveraging:
    """Lightning's exponential moving average θ̄ ← d θ̄ + (1 − d) θ after every step. It starts as the θ of the first step."""
    return EMAWeightAveraging(decay=decay, use_buffers=False)


class Watch(pl.Callback):
    """Stop a run whose loss is not finite, and report the step at which that began.

    Each step compares the loss on the device. The result is fetched every `every` steps and before each checkpoint.
    """

    every = 50

    def __init__(self) -> None:
        self.bad_since: Tensor | None = None

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        loss = outputs["loss"].detach()
        step = torch.full_like(loss, float(trainer.global_step))
        never = torch.full_like(loss, torch.inf)
        now = torch.where(loss.isfinite(), never, step)
        self.bad_since = now if self.bad_since is None else torch.minimum(self.bad_since, now)
        if stepped(trainer, batch_idx) and trainer.global_step % self.every == 0:
            self.check(trainer)

    def check(self, trainer: pl.Trainer) -> None:
        """Raises NotFinite on every rank if the loss of any rank is not finite."""
        if self.bad_since is None:
            return
        since = trainer.strategy.reduce(self.bad_since.clone(), reduce_op="min").item()
        if since != float("inf"):
            raise NotFinite(f"the loss is no longer finite, since step {since:.0f}")


class Validate(pl.Callback):
    """Evaluate the averaged network at each validation. Values go to metrics.csv and the loggers, image sheets also to disk.

    It has to precede the averaging callback, which restores the training weights when validation ends. `poll` is asked
    during the validation; where it raises StopRequested, nothing of this validation is kept. `missed` is the step of a
    checkpoint whose validation an earlier process did not finish: `trainer.validate` then makes up for it.
    """

    def __init__(
        self,
        validation: Validation,
        images: Sequence[tuple[str, Tensor]],
        folder: Path,
        journal: TrainingLog,
        poll: Callable[[], bool],
        missed: int | None = None,
    ) -> None:
        self.validation, self.images, self.folder, self.journal = validation, images, folder, journal
        self.poll, self.missed = poll, missed
        self.resume: Callable[[], None] | None = None

    def on_validation_epoch_start(self, trainer, pl_module) -> None:
        self.resume = self.journal.pause()

    def on_validation_epoch_end(self, trainer, pl_module) -> None:
        if trainer.is_global_zero:
            with suppress(StopRequested):  # `Checkpoints` raises it again, in all processes together
                findings = self.validation(pl_module.denoiser(), pl_module.prior, self.images, self.poll)
                findings.values["val_loss"] = trainer.callback_metrics["val/loss"].item()
                self.keep(trainer, findings)
        trainer.strategy.barrier("validation")
        self.resume()

    def keep(self, trainer: pl.Trainer, findings: Findings) -> None:
        """Write the sheets, then the row of metrics.csv: a validation with a row is complete."""
        step = self.missed if trainer.state.fn == TrainerFn.VALIDATING else trainer.global_step
        for name, image in findings.images.items():
            write_whole(self.folder / f"step-{step:08d}" / f"{name}.png", lambda stream, image=image: image.save(stream, "PNG"))
        self.journal.write(trainer, step, findings.values)
        summary = ", ".join(f"{name} {value:.2f}" for name, value in findings.values.items())
        tqdm.write(f"validated at step {step}: {summary}")  # above the progress bar, if there is one
        for name, image in findings.images.items():
            log_image(trainer.loggers, f"validation/{name}", image, step)


class Checkpoints(pl.Callback):
    """Save a checkpoint every `every` steps, at the end, and on a stop signal, but never one whose loss is not finite.

    A step that is validated is saved before its validation, so that a run stopped in the middle of it loses nothing.
    SIGTERM, SIGUSR1, Ctrl-C and `max_seconds` end the run with StopRequested after the current step, or within the
    validation. A second Ctrl-C ends it at once.
    """

    ranks_agree_every = 10

    def __init__(
        self,
        folder: CheckpointFolder,
        watch: Watch,
        every: int,
        validate_every: int,
        steps: int,
        max_seconds: float | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.folder, self.watch, self.every, self.validate_every, self.steps = folder, watch, every, validate_every, steps
        self.max_seconds, self.started = max_seconds, monotonic()
        self.listener = listener or Listener()
        self.saved = -1

    def on_load_checkpoint(self, trainer, pl_module, checkpoint: dict) -> None:
        """Convert the count of completed batches: this run may accumulate a step over more or fewer batches than the last one."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        done = checkpoint["global_step"] * trainer.accumulate_grad_batches
        for part in ("total", "current"):
            behind = progress[part]["ready"] - progress[part]["completed"]
            progress[part] = dict.fromkeys(("ready", "started", "processed"), done) | {"completed": done - behind}
        progress["is_last_batch"] = False  # the last batch of a finished run is not the last one of a longer run

    def on_train_start(self, trainer, pl_module) -> None:
        self.saved = trainer.global_step
        self.listener.listen()  # Lightning has set its own handlers in the meantime

    def on_validation_start(self, trainer, pl_module) -> None:
        self.listener.listen()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if not stepped(trainer, batch_idx):
            return
        step = trainer.global_step
        validated = step == self.steps or step % self.validate_every == 0
        asked = (validated or trainer.world_size == 1 or step % self.ranks_agree_every == 0) and self._any_asked(trainer)
        if asked or validated or step % self.every == 0:
            self._save(trainer, pl_module)
        if asked:
            raise self._stop()
        if step == self.steps:
            trainer.should_stop = True  # Lightning then validates, whatever its interval

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        if trainer.world_size == 1:
            self.poll()

    def on_validation_end(self, trainer, pl_module) -> None:
        if self._any_asked(trainer):
            raise self._stop()

    def poll(self) -> bool:
        """False. Raises StopRequested if this process was asked to stop."""
        if self._asked():
            raise self._stop()
        return False

    def _asked(self) -> bool:
        listener = self.listener
        if listener.received is None and self.max_seconds is not None and monotonic() - self.started > self.max_seconds:
            listener.received = "max_hours"
        return listener.received is not None

    def _any_asked(self, trainer: pl.Trainer) -> bool:
        """Whether any process was asked to stop. All processes have to call this together."""
        return trainer.strategy.reduce_boolean_decision(self._asked(), all=False)

    def _stop(self) -> StopRequested:
        return StopRequested(self.listener.received or "another process")

    def _save(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.saved == trainer.global_step:
            return
        self.watch.check(trainer)
        if not all(parameter.isfinite().all() for parameter in module.parameters()):
            raise NotFinite(f"the weights are no longer finite, at step {trainer.global_step}")
        self.folder.save(trainer)
        self.saved = trainer.global_step
