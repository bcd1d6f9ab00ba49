"""evaluate.py's way to the dashboards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pytorch_lightning.loggers import Logger

from diffusion_priors.evaluation.restoration.callbacks import EvaluationCallback
from diffusion_priors.evaluation.restoration.module import Restored
from diffusion_priors.runs.loggers import Dashboard
from diffusion_priors.runs.records import read_records


class LogRun(EvaluationCallback):
    """Running means after every batch, over the number of restorations done; what the evaluation came to at its end.

    The means begin with what is on record in `folder`. With more processes than one they are of the first one's share;
    the end is of everything.
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
        for logger in trainer.loggers:
            logger.log_metrics(means, step=len(self.done))

    def on_evaluation_end(self, folder: Path, summary: dict, records: Sequence[dict], loggers: Sequence[Logger]) -> None:
        self.dashboard.publish(loggers, folder, summary, records)

    def _add(self, records: Iterable[dict]) -> None:
        """Those not counted yet: a batch that was begun before is restored whole."""
        for record in records:
            key = (record["id"], record["sample"])
            if key in self.done:
                continue
            self.done.add(key)
            for name in self.names:
                if record[name] is not None:
                    self.sums[name] += record[name]
                    self.counts[name] += 1
