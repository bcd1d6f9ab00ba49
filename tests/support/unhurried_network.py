"""A network whose evaluations take time and no work: something to interrupt, on a busy machine too."""

from __future__ import annotations

import time

from broken_networks import Shrink
from torch import Tensor


class Unhurried(Shrink):
    """As Shrink, after a rest of `seconds`."""

    def __init__(self, seconds: float = 0.02) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return super().forward(x, t)
