"""Measurements that are rounded: their slope is 0 almost everywhere, so that a gradient has to stand in for it."""

from __future__ import annotations

from torch import Tensor

from diffusion_priors.operators.base import IMAGE_UNIT, Operator


def rounded(x: Tensor) -> Tensor:
    """round(x), with the gradient of x: the straight-through estimator (Bengio et al. 2013)."""
    return x + (x.round() - x).detach()


class Quantisation(Operator):
    """y is x0 rounded to `levels` evenly spaced values from −1 to 1: 2 is black and white, 256 the values of a usual image file.

    Values beyond [-1, 1] count as −1 and 1. The gradient is that without rounding (`rounded`), 0 beyond [-1, 1].
    Raises ValueError for fewer than two levels.
    """

    unit = IMAGE_UNIT
    rounds = True

    def __init__(self, levels: int = 8) -> None:
        super().__init__()
        if not 2 <= levels <= 2**16:
            raise ValueError(f"quantisation needs 2 to 65536 levels, got {levels}; set operator.levels")
        self.levels = levels

    def forward(self, x0: Tensor) -> Tensor:
        steps = self.levels - 1
        return 2.0 * rounded(steps * (x0.clamp(-1.0, 1.0) + 1.0) / 2.0) / steps - 1.0

    def initial_image(self, y: Tensor) -> Tensor:
        return y
