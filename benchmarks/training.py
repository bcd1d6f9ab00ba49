"""What a training step costs compared with its bare network calls: python benchmarks/training.py.

Within one run, each step of train.py's own loop (images and noise, loss, clipping, optimiser, averaged weights, log,
checks) is followed by a bare step on a copy of the network: forward, backward and AdamW on random tensors. The median
of the ratios of these pairs is printed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from copy import deepcopy
from pathlib import Path
from statistics import median

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.timing.machine import now
from diffusion_priors.diffusion.priors.folder import from_folder
from diffusion_priors.runs.trainer import TrainerSettings
from diffusion_priors.training.callbacks import Watch, average
from diffusion_priors.training.data import ImageFolder
from diffusion_priors.training.journal import TrainingLog
from diffusion_priors.training.module import PriorTraining
from diffusion_priors.training.optimisation import AdamW, ConstantRate
from diffusion_priors.training.weightings import MinSNR

BUNDLED = Path(__file__).resolve().parent.parent / "diffusion" / "weights" / "faces64"


class Pairs(pl.Callback):
    """Time each step of the trainer, from the end of one bare step to the start of the next."""

    def __init__(self, network: torch.nn.Module, batch_size: int, size: tuple[int, int], autocast: torch.dtype | None) -> None:
        self.network = deepcopy(network).train().requires_grad_(True)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), 1e-6)
        self.batch_size, self.size, self.autocast = batch_size, size, autocast
        self.ours: list[float] = []
        self.bare: list[float] = []
        self.ended: float | None = None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        started = now(pl_module.device)
        if self.ended is not None:
            self.ours.append(started - self.ended)
        self._bare(pl_module.device)
        self.ended = now(pl_module.device)
        self.bare.append(self.ended - started)

    def _bare(self, device: torch.device) -> None:
        self.network.to(device)
        x = torch.randn(self.batch_size, 3, *self.size, device=device)
        t = torch.randint(0, 1000, (self.batch_size,), device=device)
        with torch.autocast(device.type, self.autocast, enabled=self.autocast is not None):
            output = self.network(x, t)
        (output.float() - x).square().mean().backward()
        self.optimiser.step()
        self.optimiser.zero_grad()


def measure(batch_size: int, precision: int | str, steps: int, accelerator: str) -> tuple[float, float, float]:
    """Median seconds of our step and of the bare one, and the median ratio."""
    torch.manual_seed(0)
    prior = from_folder(str(BUNDLED))
    settings = TrainerSettings(accelerator=accelerator, precision=precision)
    settings.prepare(prior.network)
    pairs = Pairs(prior.network, batch_size, prior.size, torch.bfloat16 if precision == "bf16" else None)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for i in range(64):
            noise = np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / f"{i}.png")
        data = ImageFolder(folder, cache=str(root / "cache"))
        data.read(prior.channels, prior.size)
        data.plan(len(prior.schedule.table), steps, batch_size, 1, 0)
        module = PriorTraining(prior, MinSNR(), AdamW(1e-6), ConstantRate(), steps)
        callbacks = [pairs, Watch(), TrainingLog(root / "metrics.csv", [], steps, batch_size), average(0.999)]
        trainer = settings.training(callbacks, steps, 10**9, 1, 1.0, [])
        trainer.fit(module, datamodule=data)
    warm = slice(2, None)
    ratios = [a / b for a, b in zip(pairs.ours[warm], pairs.bare[warm], strict=False)]
    return median(pairs.ours[warm]), median(pairs.bare[warm]), median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--precisions", nargs="+", choices=["32", "bf16"], default=["32", "bf16"])
    parser.add_argument("--accelerator", choices=["cpu", "gpu"], default="gpu" if torch.cuda.is_available() else "cpu")
    wanted = parser.parse_args()
    rows = []
    for precision in wanted.precisions:
        for batch in wanted.batches:
            ours, bare, ratio = measure(batch, precision if precision == "bf16" else 32, wanted.steps, wanted.accelerator)
            rows.append([precision, batch, f"{1000 * bare:.0f}", f"{1000 * ours:.0f}", f"{ratio:.3f}", f"{batch / ours:.1f}"])
    headers = ["precision", "batch", "bare ms per step", "ours ms per step", "ours / bare", "images per second"]
    print(tabulate(rows, headers=headers, disable_numparse=True))


if __name__ == "__main__":
    main()
