"""Denoising: A = I."""

from __future__ import annotations

from torch import Tensor

from diffusion_priors.operators.base import LinearOperator


class Identity(LinearOperator):
    """y = x0. Aᵀ = A⁺ = I."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        return y

    def pinv(self, y: Tensor) -> Tensor:
        return y
