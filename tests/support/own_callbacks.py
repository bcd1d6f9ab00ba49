"""Callbacks as a user may write them, chosen with +callbacks.NAME._target_=own_callbacks.CLASS."""

from __future__ import annotations

import json
import os
import signal

import pytorch_lightning as pl

from diffusion_priors.evaluation.restoration.callbacks import EvaluationCallback


class Stopping(pl.Callback):
    """Sends this process SIGTERM, as a scheduler does, after `batches` batches; all jobs of a sweep count."""

    done = 0

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_predict_batch_end(self, *args, **kwargs) -> None:
        Stopping.done += 1
        if Stopping.done == self.batches:
            os.kill(os.getpid(), signal.SIGTERM)


class Ending(EvaluationCallback):
    """Appends what each call was given to endings.jsonl, and whether there was a summary before."""

    def on_evaluation_end(self, folder, summary, records, loggers) -> None:
        with (folder / "endings.jsonl").open("a") as stream:
            done = (folder / "summary.json").exists()
            call = {"summary": summary, "records": list(records), "loggers": [type(one).__name__ for one in loggers], "done": done}
            stream.write(json.dumps(call) + "\n")


class Raising(pl.Callback):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_predict_batch_end(self, *args, **kwargs) -> None:
        raise self.error


class Stumbling(EvaluationCallback):
    """Raises the first time it is called."""

    times = 0

    def on_evaluation_end(self, folder, summary, records, loggers) -> None:
        self.times += 1
        if self.times == 1:
            raise RuntimeError("stumbled")
