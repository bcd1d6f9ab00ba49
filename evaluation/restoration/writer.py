"""evaluate.py's writer."""

from __future__ import annotations

import pytorch_lightning as pl

from diffusion_priors.evaluation.restoration.background import Background
from diffusion_priors.evaluation.restoration.folder import EvaluationFolder
from diffusion_priors.evaluation.restoration.module import Restored


class WriteRecords(pl.Callback):
    """Hands every finished batch to the folder, which writes it while the next one is computed."""

    def __init__(self, folder: EvaluationFolder, known: set[tuple[str, int]]) -> None:
        self.folder, self.known = folder, known
        self.background = Background()

    def on_predict_batch_end(self, trainer, pl_module, outputs: Restored, batch, batch_idx, dataloader_idx=0) -> None:
        self.background(lambda: self.folder.add(outputs, self.known))

    def on_predict_end(self, trainer, pl_module) -> None:
        self.background.wait()

    def on_exception(self, trainer, pl_module, exception) -> None:
        self.background.wait()
