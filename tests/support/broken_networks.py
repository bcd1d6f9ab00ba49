"""Networks for tests of prior=custom: tiny, known, and broken on purpose."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Shrink(nn.Module):
    """ε̂ = gain · x_t, the right answer for an image of noise alone."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.gain * x


class NaNForBright(Shrink):
    """Like Shrink, but NaN for images brighter than `above`, at t up to `below_t`."""

    def __init__(self, above: float = 0.4, below_t: int = 1000) -> None:
        super().__init__()
        self.above, self.below_t = above, below_t

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        bad = (x.mean((1, 2, 3)) > self.above) & (t < self.below_t)
        return super().forward(x, t).masked_fill(bad[:, None, None, None], torch.nan)


class WrongChannels(nn.Module):
    """Returns five channels for any input."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], 5, *x.shape[2:])
