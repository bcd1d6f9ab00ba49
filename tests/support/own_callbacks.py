"""Callbacks as a user may write them, chosen with +callbacks.NAME._target_=own_callbacks.CLASS."""

from __future__ import annotations

import json
import os
import signal

import pytorch_lightning as pl

from diffusion_priors.evaluation.restoration.callbacks import EvaluationCallback


class Told(pl.Callback):
    """This process is told to stop, as a scheduler would, when it has done `batches` batches; all jobs of a sweep count."""

    done = 0

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_predict_batch_end(self, *args, **kwargs) -> None:
        Told.done += 1
        if Told.done == self.batches:
            os.kill(os.getpid(), signal.SIGTERM)


class Ending(EvaluationCallback):
    """Leaves a line a call in endings.jsonl: what it was given, and whether the run was marked as done before."""

    def on_evaluation_end(self, folder, summary, records, loggers) -> None:
        with (folder / "endings.jsonl").open("a") as stream:
            done = (folder / "summary.json").exists()
            told = {"summary": summary, "records": list(records), "loggers": [type(one).__name__ for one in loggers], "done": done}
            stream.write(json.dumps(told) + "\n")
