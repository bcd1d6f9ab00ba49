"""The LightningModule that trains or fine-tunes a prior's network."""

from __future__ import annotations

from copy import deepcopy
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor

from diffusion_priors.diffusion.denoiser import Denoiser, split_variance
from diffusion_priors.diffusion.image_random import image_generator
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.training.optimisation import AdamW, LearningRate
from diffusion_priors.training.variance_bound import VarianceBound
from diffusion_priors.training.weightings import Weighting


class TrainingBatch(NamedTuple):
    """`x0` and its noise `z` (B, C, H, W), x0 in [-1, 1], and the levels' 0-based `index` (B,)."""

    x0: Tensor
    z: Tensor
    index: Tensor


def training_levels(prior: Prior) -> list[NoiseLevel]:
    """The levels that a network is trained on, in its own pixel units, least noisy first.

    Raises ValueError for a continuous schedule: training draws an index into a table of levels.
    """
    schedule = prior.schedule
    if schedule.table is None:
        raise ValueError(f"training needs a schedule with a table of levels, and {schedule.kind} is continuous; set schedule=linear")
    return schedule.table


class PriorTraining(pl.LightningModule):
    """L = E[w(t) ‖error(network(c_in (α x0 + σ z), c_noise))‖²] + λ T E[L_t] (Ho et al. 2020, Eq. 14; Nichol & Dhariwal 2021, Eq. 16).

    The error is the preconditioning's, averaged over pixels and images. The second term applies only to networks
    with learned variance: `variance_weight` is λ. `steps` is the run length that the learning-rate schedule uses.
    The batch holds all random numbers except those of dropout, which are a function of (seed, step).
    A checkpoint contains the prior's card, so it describes itself.
    """

    def __init__(
        self,
        prior: Prior,
        weighting: Weighting,
        optimiser: AdamW,
        lr_schedule: LearningRate,
        steps: int,
        variance_weight: float = 1e-3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.prior, self.weighting, self.optimiser, self.lr_schedule = prior, weighting, optimiser, lr_schedule
        self.steps, self.variance_weight, self.seed = steps, variance_weight, seed
        self.network = prior.network.train().requires_grad_(True)
        levels = training_levels(prior)
        for name in ("t", "alpha", "sigma"):
            values = torch.tensor([getattr(level, name) for level in levels], dtype=torch.float64)
            whole = name == "t" and all(isinstance(level.t, int) for level in levels)
            self.register_buffer(f"_{name}", values.long() if whole else values.float(), persistent=False)
        self.bound = VarianceBound(levels, prior.pixel_scale, prior.pixel_shift)

    def training_step(self, batch: TrainingBatch, batch_idx: int = 0) -> Tensor:
        return self.losses(batch).mean()

    def validation_step(self, batch: TrainingBatch, batch_idx: int = 0) -> None:
        losses = self.losses(batch)
        self.log("val/loss", losses.mean(), batch_size=len(losses), sync_dist=True, logger=False)

    def losses(self, batch: TrainingBatch) -> Tensor:
        """The loss of each image, (B,)."""
        preconditioning = self.prior.preconditioning
        x0 = self.prior.pixel_scale * batch.x0 + self.prior.pixel_shift
        level = NoiseLevel(self._t[batch.index], *(table[batch.index].view(-1, 1, 1, 1) for table in (self._alpha, self._sigma)))
        x_t = level.diffuse(x0, batch.z)
        output, variance_fraction = split_variance(self.network(*preconditioning.inputs(x_t, level)).float(), x0.shape[1])
        error = preconditioning.error(output, x0, batch.z, level)
        losses = (self.weighting(level, preconditioning) * error**2).flatten(1).mean(1)
        if variance_fraction is None:
            return losses
        x0_hat = preconditioning.x0(x_t, output, level)
        return losses + self.variance_weight * len(self._t) * self.bound(x0, x0_hat, variance_fraction, batch.index)

    def denoiser(self) -> Denoiser:
        """A denoiser around a frozen copy of the current network."""
        return Denoiser(self.prior.with_network(deepcopy(self.network)))

    def configure_optimizers(self) -> dict:
        optimiser = self.optimiser(p for p in self.parameters() if p.requires_grad)
        factor = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: self.lr_schedule(step, self.steps))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": factor, "interval": "step"}}

    def on_train_batch_start(self, batch: TrainingBatch, batch_idx: int) -> None:
        torch.manual_seed(int(image_generator(self.seed, "dropout", batch_idx, self.global_rank).integers(2**63)))

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["prior"] = self.prior.describe()
