"""Lightning callbacks of a restoration run: the base class of your own, and the one that writes to dashboards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger

from diffusion_priors.evaluation.restoration.batches import Restored
from diffusion_priors.runs.loggers import Dashboard
from diffusion_priors.runs.reading.records import read_records


class EvaluationCallback(pl.Callback):
    """A Lightning callback of evaluate.py. `on_predict_batch_end` gets a `Restored` as `outputs`; one more hook is added."""

    def on_evaluation_end(self, folder: Path, summary: dict, records: Sequence[dict], loggers: Sequence[Logger]) -> None:
        """Called in the first process only, once the records of all processes and of all parts of the run exist.

        `folder` holds records.jsonl, images/ and figure.png. `summary` is what summary.json will hold; the file is
        written after this returns. `records` are in order. This is not called where a run was stopped, and it is called
        again where it raised an error.
        """


class LogRun(EvaluationCallback):
    """Running means after every batch, over the number of restorations done, and the summary at the end.

    The means start with the records in `folder`. With more than one process they are of the first one's share; the
    summary is of everything.
    """

    def __init__(self, dashboard: Dashboard, folder: Path) -> None:
        self.dashboard, self.folder = dashboard, folder

    def on_predict_start(self, trainer, pl_module) -> None:
        self.names = (*pl_module.metrics.names, "residual")
        self.done: set[tuple[str, int]] = set()
        self.sums = dict.fromkeys(self.names, 0.0)
        self.counts = dict.fromkeys(self.names, 0)
        if trainer.loggers:
            self._add(read_records(self.folder))

    def on_predict_batch_end(self, trainer, pl_module, outputs: Restored, batch, batch_idx, dataloader_idx=0) -> None:
        self._add(outputs.records)
        means = {f"running/{name}": self.sums[name] / self.counts[name] for name in self.names if self.counts[name]}
        for logger in trainer.loggers if outputs.records else ():
            logger.log_metrics(means, step=len(self.done))

    def on_evaluation_end(self, folder: Path, summary: dict, records: Sequence[dict], loggers: Sequence[Logger]) -> None:
        self.dashboard.publish(loggers, folder, summary, records)

    def _add(self, records: Iterable[dict]) -> None:
        """Count each record once: a batch that was computed in part before is restored as a whole."""
        for record in records:
            key = (record["id"], record["sample"])
            if key in self.done:
                continue
            self.done.add(key)
            for name in self.names:
                if record[name] is not None:
                    self.sums[name] += record[name]
                    self.counts[name] += 1
