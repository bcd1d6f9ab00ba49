"""Lightning callbacks of a training run."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch import Tensor
from tqdm import tqdm

from diffusion_priors.runs.files import append_line, write_whole
from diffusion_priors.runs.loggers import log_image
from diffusion_priors.runs.signals import Listener, ToldToStop
from diffusion_priors.training.checkpoints import CheckpointFolder
from diffusion_priors.training.validation import Findings, Validation


class NotFinite(RuntimeError):
    """The loss stopped being a number."""


def stepped(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether the batch just done ended an optimiser step."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0


def average(decay: float) -> EMAWeightAveraging:
    """Lightning's exponential moving average θ̄ ← d θ̄ + (1 − d) θ after every step, begun at θ after the first."""
    return EMAWeightAveraging(decay=decay, use_buffers=False)


class Watch(pl.Callback):
    """Stops a run whose loss is no longer a number, and remembers at which step that began.

    The loss is looked at on the device, and fetched only every so many steps and before each checkpoint.
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
        """Raises NotFinite on every rank where the loss of any has gone."""
        if self.bad_since is None:
            return
        since = trainer.strategy.reduce(self.bad_since.clone(), reduce_op="min").item()
        if since != float("inf"):
            raise NotFinite(f"the loss is no longer a number, since step {since:.0f}")


class TrainingLog(pl.Callback):
    """metrics.csv, a row every `every` steps and at each validation; progress on the terminal.

    Columns: step, images, loss (mean since the row before), lr, images_per_second, and what was validated.
    """

    def __init__(self, path: Path, names: Sequence[str], steps: int, batch_size: int, every: int = 50, seconds: float = 10.0) -> None:
        self.path, self.steps, self.batch_size, self.every, self.seconds = path, steps, batch_size, every, seconds
        self.columns = ["step", "images", "loss", "lr", "images_per_second", *names]
        self.terminal = sys.stderr.isatty()
        self.bar: tqdm | None = None
        self.loss: float | None = None  # the last row's
        self.trained_before = 0.0
        self.total: Tensor | None = None
        self.count = 0

    def state_dict(self) -> dict:
        """Seconds trained in all, validation left out, and the loss since the last row."""
        seconds = self.trained_before + monotonic() - self.started
        return {"seconds": seconds, "total": self.total, "count": self.count}

    def load_state_dict(self, state: dict) -> None:
        self.trained_before, self.total, self.count = state["seconds"], state["total"], state["count"]

    def on_train_start(self, trainer, pl_module) -> None:
        if self.total is not None:
            self.total = self.total.to(pl_module.device)
        self.first = self.row_step = trainer.global_step
        self.started = self.told = self.row_time = monotonic()
        if trainer.is_global_zero:
            self._forget_after(trainer.global_step)

    def _forget_after(self, step: int) -> None:
        """Drop the rows that the resumed run writes again."""
        rows = list(csv.DictReader(self.path.open())) if self.path.exists() else []
        kept = [row for row in rows if row.get("step", "").isdigit() and int(row["step"]) <= step]
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, extrasaction="ignore", restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
        write_whole(self.path, lambda stream: stream.write(text.getvalue().encode()))

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        loss = outputs["loss"].detach()
        self.total = loss if self.total is None else self.total + loss
        self.count += 1
        if not stepped(trainer, batch_idx):
            return
        step, now = trainer.global_step, monotonic()
        if step % self.every == 0 or step == self.steps:
            mean = trainer.strategy.reduce(self.total / self.count, reduce_op="mean").item()
            self._row(trainer, mean, now)
            self.total, self.count = None, 0
        if trainer.is_global_zero and now - self.told > (0.3 if self.terminal else self.seconds):
            self._tell(step, now)

    def _row(self, trainer: pl.Trainer, loss: float, now: float) -> None:
        step = trainer.global_step
        values = {
            "step": step,
            "images": step * self.batch_size,
            "loss": loss * trainer.accumulate_grad_batches,
            "lr": self.lr,
            "images_per_second": (step - self.row_step) * self.batch_size / max(now - self.row_time, 1e-9),
        }
        self.loss = values["loss"]
        self.row_step, self.row_time = step, now
        self.write(trainer, values)

    def write(self, trainer: pl.Trainer, values: dict[str, float]) -> None:
        """A row of metrics.csv, and the same to every logger."""
        if not trainer.is_global_zero:
            return
        text = io.StringIO()
        csv.DictWriter(text, self.columns, restval="", lineterminator="").writerow({"step": trainer.global_step} | values)
        append_line(self.path, text.getvalue())
        for logger in trainer.loggers:
            logger.log_metrics({name: value for name, value in values.items() if name != "step"}, step=trainer.global_step)

    def pause(self) -> Callable[[], None]:
        """Leave out of the rate what happens until the answer is called."""
        began = monotonic()

        def resume() -> None:
            self.row_time += monotonic() - began
            self.started += monotonic() - began

        return resume

    def _tell(self, step: int, now: float) -> None:
        self.told = now
        rate = (step - self.first) * self.batch_size / max(now - self.started, 1e-9)
        loss = "loss –" if self.loss is None else f"loss {self.loss:.4f}"
        if self.terminal:
            if self.bar is None:
                self.bar = tqdm(total=self.steps, initial=step, unit="step", file=sys.stderr, dynamic_ncols=True)
            self.bar.set_postfix_str(f"{loss}, {rate:.1f} images/s", refresh=False)
            self.bar.update(step - self.bar.n)
            return
        left = (self.steps - step) * self.batch_size / max(rate, 1e-9)
        print(f"step {step}/{self.steps}, {loss}, {rate:.1f} images/s, {left:.0f} s left", file=sys.stderr, flush=True)

    def teardown(self, trainer, pl_module, stage) -> None:
        if self.bar is not None:
            self.bar.update(trainer.global_step - self.bar.n)
            self.bar.close()


class Validate(pl.Callback):
    """Looks at the averaged network at each validation: figures to metrics.csv and the loggers, sheets to disk too.

    Has to stand before the averaging callback, which takes its weights out again when validation ends.
    """

    def __init__(self, validation: Validation, images: Sequence[tuple[str, Tensor]], folder: Path, journal: TrainingLog) -> None:
        self.validation, self.images, self.folder, self.journal = validation, images, folder, journal
        self.resume: Callable[[], None] | None = None

    def on_validation_epoch_start(self, trainer, pl_module) -> None:
        self.resume = self.journal.pause()

    def on_validation_epoch_end(self, trainer, pl_module) -> None:
        if trainer.is_global_zero:
            findings = self.validation(pl_module.denoiser(), pl_module.prior, self.images)
            findings.figures["val_loss"] = trainer.callback_metrics["val/loss"].item()
            self.keep(trainer, findings)
        trainer.strategy.barrier("validation")
        self.resume()

    def keep(self, trainer: pl.Trainer, findings: Findings) -> None:
        folder = self.folder / f"step-{trainer.global_step:08d}"
        for name, image in findings.images.items():
            write_whole(folder / f"{name}.png", lambda stream, image=image: image.save(stream, "PNG"))
        self.journal.write(trainer, findings.figures)
        told = ", ".join(f"{name} {value:.2f}" for name, value in findings.figures.items())
        tqdm.write(f"validated at step {trainer.global_step}: {told}")  # above the bar, if there is one
        for name, image in findings.images.items():
            log_image(trainer.loggers, name, image, trainer.global_step)


class Checkpoints(pl.Callback):
    """A checkpoint every `every` steps, at the end, and when told to stop; none of a loss that is no number.

    A step that is validated, as the last one is, is saved after its validation, so that a resumed run has every figure.
    SIGTERM, SIGUSR1 and Ctrl-C end the run with ToldToStop after the step at hand (and its validation), `max_seconds`
    too. A second Ctrl-C ends it at once.
    """

    ranks_agree_every = 10

    def __init__(
        self, folder: CheckpointFolder, watch: Watch, every: int, validate_every: int, steps: int, max_seconds: float | None
    ) -> None:
        self.folder, self.watch, self.every, self.validate_every, self.steps = folder, watch, every, validate_every, steps
        self.max_seconds, self.started = max_seconds, monotonic()
        self.listener = Listener()
        self.saved = -1

    def on_load_checkpoint(self, trainer, pl_module, checkpoint: dict) -> None:
        """Count the batches done as this run takes them: it may take a step in more or fewer turns than the one before."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        done = checkpoint["global_step"] * trainer.accumulate_grad_batches
        for part in ("total", "current"):
            behind = progress[part]["ready"] - progress[part]["completed"]
            progress[part] = dict.fromkeys(("ready", "started", "processed"), done) | {"completed": done - behind}
        progress["is_last_batch"] = False  # a finished run's last batch is not that of a longer one

    def on_train_start(self, trainer, pl_module) -> None:
        self.saved = trainer.global_step
        self.listener.listen()  # Lightning has set handlers of its own meanwhile

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if not stepped(trainer, batch_idx):
            return
        step = trainer.global_step
        if step == self.steps:
            trainer.should_stop = True  # which has Lightning validate, whatever its interval
        elif step % self.validate_every == 0:
            pass  # saved, and stopped if need be, once it is validated
        elif (trainer.world_size == 1 or step % self.ranks_agree_every == 0) and self._told_any(trainer):
            self._save(trainer, pl_module)
            raise ToldToStop(self.listener.told or "another process")
        elif step % self.every == 0:
            self._save(trainer, pl_module)

    def on_validation_end(self, trainer, pl_module) -> None:
        self._save(trainer, pl_module)
        if trainer.global_step < self.steps and self._told_any(trainer):
            raise ToldToStop(self.listener.told or "another process")

    def _told_any(self, trainer: pl.Trainer) -> bool:
        """Whether any process was told to stop; all of them have to ask at once."""
        listener = self.listener
        if listener.told is None and self.max_seconds is not None and monotonic() - self.started > self.max_seconds:
            listener.told = "max_hours"
        return trainer.strategy.reduce_boolean_decision(listener.told is not None, all=False)

    def _save(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.saved == trainer.global_step:
            return
        self.watch.check(trainer)
        if not all(parameter.isfinite().all() for parameter in module.parameters()):
            raise NotFinite(f"the weights are no longer numbers, at step {trainer.global_step}")
        self.folder.save(trainer)
        self.saved = trainer.global_step
