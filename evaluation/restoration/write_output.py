"""sample.py's writer."""

from __future__ import annotations

import pytorch_lightning as pl

from diffusion_priors.evaluation.restoration.module import Restored
from diffusion_priors.evaluation.restoration.output import OutputFolder


class WriteOutput(pl.Callback):
    """Hands every finished batch to the output folder."""

    def __init__(self, folder: OutputFolder) -> None:
        self.folder = folder

    def on_predict_batch_end(self, trainer, pl_module, outputs: Restored, batch, batch_idx, dataloader_idx=0) -> None:
        self.folder.add(outputs)
