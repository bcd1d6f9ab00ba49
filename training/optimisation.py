"""The optimiser and its learning-rate schedules."""

from __future__ import annotations

from collections.abc import Iterable
from math import cos, pi

import torch
from torch import nn


class LearningRate:
    """lr(step) = lr · min(1, (step + 1)/(warmup + 1)) · decay(step), for steps 0 … total − 1.

    Raises ValueError for a negative warm-up.
    """

    name: str

    def __init__(self, warmup: int = 100) -> None:
        if warmup < 0:
            raise ValueError(f"the warm-up is a number of steps, got {warmup}; set lr_schedule.warmup to 0 or more")
        self.warmup = warmup

    def __call__(self, step: int, total: int) -> float:
        """The factor that multiplies the optimiser's learning rate."""
        return min(1.0, (step + 1) / (self.warmup + 1)) * self.decay(step, total)

    def decay(self, step: int, total: int) -> float:
        raise NotImplementedError


class ConstantRate(LearningRate):
    """decay = 1."""

    name = "constant"

    def decay(self, step, total):
        return 1.0


class CosineDecay(LearningRate):
    """decay = ½ (1 + cos(π step/total)) (Loshchilov & Hutter 2017, Eq. 5, one cycle)."""

    name = "cosine"

    def decay(self, step, total):
        return 0.5 * (1.0 + cos(pi * min(step / total, 1.0)))


class LinearDecay(LearningRate):
    """decay = min(1, (total − step)/(last · total)): constant at first, then linear to zero over the last part of the run.

    `last` is the fraction of the run in which the rate falls. A run with a small `last` can be extended or shortened
    from the same checkpoints. Raises ValueError for a fraction outside (0, 1].
    """

    name = "linear"

    def __init__(self, warmup: int = 100, last: float = 1.0) -> None:
        super().__init__(warmup)
        if not 0.0 < last <= 1.0:
            raise ValueError(f"the fraction of the run in which the rate falls must lie in (0, 1], got {last}; set lr_schedule.last")
        self.last = last

    def decay(self, step, total):
        return min(1.0, max(total - step, 0) / (self.last * total))


class AdamW:
    """AdamW (Loshchilov & Hutter 2019, Alg. 2) for the given parameters.

    Raises ValueError for a learning rate that is not positive, for betas outside [0, 1), and for a negative weight decay.
    """

    def __init__(self, lr: float = 2e-4, betas: tuple[float, float] = (0.9, 0.999), weight_decay: float = 0.0) -> None:
        if not lr > 0.0:
            raise ValueError(f"the learning rate must be positive, got {lr}; set optimiser.lr")
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"AdamW's betas must lie in [0, 1), got {list(betas)}; set optimiser.betas")
        if not weight_decay >= 0.0:
            raise ValueError(f"the weight decay must not be negative, got {weight_decay}; set optimiser.weight_decay")
        self.lr, self.betas, self.weight_decay = lr, betas, weight_decay

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=self.lr, betas=tuple(self.betas), weight_decay=self.weight_decay)
