"""Denoising: A = I."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.operators.base import IMAGE_UNIT
from diffusion_priors.operators.linear import LinearOperator
from diffusion_priors.operators.spectrum import Diagonal


class Identity(LinearOperator):
    """y = x0. Aᴴ = A⁺ = I."""

    has_spectrum = True
    unit = IMAGE_UNIT
    one: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("one", torch.ones(()), persistent=False)

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        self.one = like.new_ones(())
        return self

    def forward(self, x0: Tensor) -> Tensor:
        return x0

    def adjoint(self, y: Tensor) -> Tensor:
        return y

    def spectrum(self) -> Diagonal:
        return Diagonal(self.one)
