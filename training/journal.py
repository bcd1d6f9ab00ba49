"""The log of a training run: metrics.csv, the dashboards, and progress on the terminal."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic

import pytorch_lightning as pl
from torch import Tensor
from tqdm import tqdm

from diffusion_priors.runs.files import append_line, write_whole

OF_TRAINING = ("images", "loss", "lr", "images_per_second")
"""The columns of a training step; those of validation have other names."""


def stepped(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether the batch just processed completed an optimiser step."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0


def rows_of(path: Path) -> list[dict[str, str]]:
    """The complete rows of a metrics.csv; none where there is no such file."""
    rows = list(csv.DictReader(path.open(encoding="utf-8"))) if path.is_file() else []
    return [row for row in rows if (row.get("step") or "").isdecimal()]


class TrainingLog(pl.Callback):
    """metrics.csv, with a row every `every` steps and one per validation; progress on the terminal.

    Columns: step, images, loss (mean since the previous row), lr, images_per_second, and the validated `names`.
    """

    def __init__(self, path: Path, names: Sequence[str], steps: int, batch_size: int, every: int = 50, seconds: float = 10.0) -> None:
        self.path, self.steps, self.batch_size, self.every, self.seconds = path, steps, batch_size, every, seconds
        self.columns = ["step", *OF_TRAINING, *names]
        self.terminal = sys.stderr.isatty()
        self.bar: tqdm | None = None
        self.loss: float | None = None  # of the latest row
        self.trained_before = 0.0
        self.total: Tensor | None = None
        self.count = 0
        self.started = self.row_time = monotonic()

    def state_dict(self) -> dict:
        """The seconds of training so far, without validation, and the loss since the latest row, one number per process."""
        seconds = self.trained_before + monotonic() - self.started
        total = None if self.total is None else self.gather(self.total).reshape(-1)
        return {"seconds": seconds, "total": total, "count": self.count}

    def load_state_dict(self, state: dict) -> None:
        self.trained_before, self.total, self.count = state["seconds"], state["total"], state["count"]

    def on_train_start(self, trainer, pl_module) -> None:
        self.gather = trainer.strategy.all_gather
        if self.total is not None:
            totals = self.total.reshape(-1).to(pl_module.device)
            self.total = totals[trainer.global_rank] if len(totals) == trainer.world_size else totals.mean()
        self.first = self.row_step = trainer.global_step
        self.started = self.shown_at = self.row_time = monotonic()
        if trainer.is_global_zero:
            self.drop_rows_after(trainer.global_step)

    def drop_rows_after(self, step: int) -> None:
        """Remove the rows that the resumed run writes again."""
        kept = [row for row in rows_of(self.path) if int(row["step"]) <= step]
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
        if trainer.is_global_zero and now - self.shown_at > (0.3 if self.terminal else self.seconds):
            self._show_progress(step, now)

    def _row(self, trainer: pl.Trainer, loss: float, now: float) -> None:
        step = trainer.global_step
        values = {
            "images": step * self.batch_size,
            "loss": loss * trainer.accumulate_grad_batches,
            "lr": self.lr,
            "images_per_second": (step - self.row_step) * self.batch_size / max(now - self.row_time, 1e-9),
        }
        self.loss = values["loss"]
        self.row_step, self.row_time = step, now
        self.write(trainer, step, values)

    def write(self, trainer: pl.Trainer, step: int, values: dict[str, float]) -> None:
        """Append one row to metrics.csv and send it to every logger, there in the groups `train` and `validation`."""
        if not trainer.is_global_zero:
            return
        text = io.StringIO()
        csv.DictWriter(text, self.columns, restval="", lineterminator="").writerow({"step": step} | values)
        append_line(self.path, text.getvalue())
        grouped = {f"{'train' if name in OF_TRAINING else 'validation'}/{name}": value for name, value in values.items()}
        for logger in trainer.loggers:
            logger.log_metrics(grouped, step=step)

    def pause(self) -> Callable[[], None]:
        """Stop counting time for the rate of images; call the returned function to resume."""
        paused_at = monotonic()

        def resume() -> None:
            self.row_time += monotonic() - paused_at
            self.started += monotonic() - paused_at

        return resume

    def _show_progress(self, step: int, now: float) -> None:
        self.shown_at = now
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
