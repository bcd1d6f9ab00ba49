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
