"""Results are written while the next images are computed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytorch_lightning as pl

from diffusion_priors.evaluation.restoration.batches import Restored
from diffusion_priors.evaluation.restoration.folder import RestorationFolder


class Background:
    """Runs one call after another in a thread, at most one behind. An error that a call raises comes out of the next call or `wait`."""

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, "writer")
        self.last: Future | None = None

    def __call__(self, function: Callable[[], object]) -> None:
        self.wait()
        self.last = self.thread.submit(function)

    def wait(self) -> None:
        last, self.last = self.last, None
        if last is not None:
            last.result()


class WriteRecords(pl.Callback):
    """Hands every finished batch to the folder, which writes it while the next one is computed."""

    def __init__(self, folder: RestorationFolder, known: set[tuple[str, int]]) -> None:
        self.folder, self.known = folder, known
        self.background = Background()

    def on_predict_batch_end(self, trainer, pl_module, outputs: Restored, batch, batch_idx, dataloader_idx=0) -> None:
        self.background(lambda: self.folder.add(outputs, self.known))

    def on_predict_end(self, trainer, pl_module) -> None:
        self.background.wait()

    def on_exception(self, trainer, pl_module, exception) -> None:
        self.background.wait()
