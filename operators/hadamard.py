"""Compressed sensing with a fast transform."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.operators.linear import LinearOperator
from diffusion_priors.operators.spectrum import Orthogonal


class WalshHadamard(LinearOperator):
    """y = M ⊙ H D x0 per channel: random signs D, the orthonormal Walsh-Hadamard transform H, a random subset M of its rows.

    D and M are drawn for every image and shared by its channels; M keeps round(`keep` · H · W) rows, all sets of rows with
    the same probability (Do et al. 2012, local randomiser). The code of DDRM permutes the pixels in place of D and keeps the
    first rows. Rows are orthonormal: A Aᴴ = I on the kept ones, and A⁺ = Aᴴ. y is (B, C, H, W), 0 where it is not measured,
    and no image.

    Raises ValueError where `keep` lies outside (0, 1], where a side is no power of two, and where no row is kept.
    """

    random = True
    has_spectrum = True
    unit = "Walsh-Hadamard coefficients of [-1, 1] images"
    mask: Tensor
    signs: Tensor

    def __init__(self, keep: float = 0.25) -> None:
        super().__init__()
        if not 0.0 < keep <= 1.0:
            raise ValueError(f"the share of kept rows must lie above 0 and be at most 1, got {keep}; set operator.keep")
        self.keep = keep
        for name in ("mask", "signs"):
            self.register_buffer(name, None, persistent=False)

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        height, width = like.shape[-2:]
        for side in (height, width):
            if side & (side - 1):
                raise ValueError(f"a side of {side} pixels is no power of two, as Walsh-Hadamard transforms need; set prior.size")
        count = round(self.keep * height * width)
        if count < 1:
            raise ValueError(f"keep={self.keep} keeps no row for a {height} x {width} image; raise operator.keep")
        rows = [(g.permutation(height * width) < count, g.integers(2, size=height * width)) for g in generators]
        mask, signs = (torch.from_numpy(np.stack(part)).view(-1, 1, height, width) for part in zip(*rows, strict=True))
        self.mask, self.signs = mask.to(like), (2 * signs - 1).to(like)
        return self

    def forward(self, x0: Tensor) -> Tensor:
        return self.mask * walsh_hadamard(self.signs * x0)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.signs * walsh_hadamard(self.mask * y)

    def support(self, y: Tensor) -> Tensor:
        return self.mask

    def spectrum(self) -> Orthogonal:
        """s = M, V = D H, U = I."""
        return Orthogonal(
            self.mask,
            lambda x: walsh_hadamard(self.signs * x),
            lambda c: self.signs * walsh_hadamard(c),
            lambda y: y,
        )

    def has_image_shape(self, y: Tensor) -> bool:
        """Never: y is no image, though it has the shape of one."""
        return False


def walsh_hadamard(x: Tensor) -> Tensor:
    """The orthonormal transform of rows and columns, symmetric and its own inverse, by n log₂ n additions; sides are powers of two."""
    for axis in (-2, -1):
        side, half = x.shape[axis], 1
        while half < side:
            first, second = x.unflatten(axis, (side // (2 * half), 2, half)).unbind(axis - 1)
            x = torch.stack([first + second, first - second], axis - 1).flatten(axis - 2, axis)
            half *= 2
    return x / (x.shape[-2] * x.shape[-1]) ** 0.5
