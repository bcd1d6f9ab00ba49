"""Where your own callbacks of evaluations begin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger


class EvaluationCallback(pl.Callback):
    """A Lightning callback of evaluate.py, with its hooks (`on_predict_batch_end` is given a `Restored`) and one more."""

    def on_evaluation_end(self, folder: Path, summary: dict, records: Sequence[dict], loggers: Sequence[Logger]) -> None:
        """In the first process alone, once the records of all processes and of all parts of the run are there.

        `folder` holds records.jsonl, images/ and figure.png; `summary` is what summary.json will hold, written last, once
        this has returned; `records` are in order. Not called where a run was told to stop, and again where this raised.
        """
