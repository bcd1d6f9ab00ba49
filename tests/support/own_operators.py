"""Operators as a user may write them, whose y is no image: operator=identity operator._target_=own_operators.CLASS."""

from __future__ import annotations

import torch

from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.linear import LinearOperator


class PhaseRetrieval(Operator):
    """y = |F x0|: not linear, real, and with more entries than the image."""

    def forward(self, x0):
        return torch.fft.fft2(x0, s=[2 * side for side in x0.shape[-2:]], norm="ortho").abs()


class EveryFourthColumn(LinearOperator):
    """y = the columns 0, 4, 8, … of F x0: linear and complex, as in magnetic resonance imaging."""

    def forward(self, x0):
        return torch.fft.fft2(x0, norm="ortho")[..., ::4]


def exposed(x0, gain=1.5):
    """y = tanh(gain · x0): a function, not linear, for operator=custom."""
    return (gain * x0).tanh()


def ghosted(x0, strength=0.4):
    """y = x0 and a fainter copy three columns to the right: linear."""
    return x0 + strength * x0.roll(3, -1)


class Ghosted(torch.nn.Module):
    """The same as a class in the manner of DeepInverse's linear physics, with a filter of its own."""

    def __init__(self, strength=0.4, exact=True):
        super().__init__()
        self.register_buffer("strength", torch.tensor(strength))
        self.exact = exact

    def A(self, x):
        return x + self.strength * x.roll(3, -1)

    def A_adjoint(self, y):
        return y + self.strength * y.roll(-3 if self.exact else 3, -1)
