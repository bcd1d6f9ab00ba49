"""Colour: y has one channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.operators.base import IMAGE_UNIT
from diffusion_priors.operators.linear import LinearOperator
from diffusion_priors.operators.spectrum import Orthogonal


class Colorization(LinearOperator):
    """y = Σ_c w_c x0_c, Σ w = 1: a grey image. A has rank 1 at each pixel and the singular value ‖w‖₂.

    `weights` are scaled to sum 1; by default all channels weigh the same, as in the code of DDRM. The luma of ITU-R
    BT.601 is weights=[0.299,0.587,0.114]. y is (B, 1, H, W).

    Raises ValueError for negative weights, for weights that are all 0, and for another number of weights than of channels.
    """

    has_spectrum = True
    unit = IMAGE_UNIT
    weights: Tensor
    basis: Tensor

    def __init__(self, weights: tuple[float, ...] | None = None) -> None:
        super().__init__()
        if weights is not None and not (min(weights, default=0.0) >= 0.0 and 0.0 < sum(weights) < np.inf):
            raise ValueError(f"weights of channels are not negative and not all 0, got {list(weights)}; set operator.weights")
        self.given = weights
        for name in ("weights", "basis"):
            self.register_buffer(name, None, persistent=False)

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        channels = like.shape[1]
        given = np.ones(channels) if self.given is None else np.asarray(self.given, dtype=float)
        if len(given) != channels:
            raise ValueError(f"{len(given)} weights are given for images of {channels} channels; set operator.weights")
        weights = given / given.sum()
        self.weights = torch.from_numpy(weights).to(like).view(1, channels, 1, 1)
        self.basis = torch.from_numpy(_orthogonal(weights / np.linalg.norm(weights))).to(like)
        return self

    def forward(self, x0: Tensor) -> Tensor:
        return (self.weights * x0).sum(1, keepdim=True)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.weights * y

    def spectrum(self) -> Orthogonal:
        """s = ‖w‖₂ for the first channel of coefficients, that along w, and 0 for the others."""
        s = F.pad(self.weights.square().sum().sqrt().view(1, 1, 1), (0, 0, 0, 0, 0, len(self.basis) - 1))
        return Orthogonal(
            s,
            lambda x: torch.einsum("kc,bkhw->bchw", self.basis, x),
            lambda c: torch.einsum("kc,bchw->bkhw", self.basis, c),
            lambda y: F.pad(y, (0, 0, 0, 0, 0, len(self.basis) - 1)),
        )

    def as_image(self, y: Tensor) -> Tensor:
        return y

    def initial_image(self, y: Tensor) -> Tensor:
        """y in every channel: a grey image that explains y, where A⁺y has the colour of the weights."""
        return y.expand(-1, self.image_shape[1], -1, -1)


def _orthogonal(first: np.ndarray) -> np.ndarray:
    """(n, n) with the unit vector `first` as first column: the reflection that swaps it with (1, 0, …)."""
    v = first.copy()
    v[0] -= 1.0
    size = v @ v
    return np.eye(len(v)) - (2.0 / size) * np.outer(v, v) if size > 1e-24 else np.eye(len(v))
