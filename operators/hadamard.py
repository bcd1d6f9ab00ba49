"""Compressed sensing with a fast transform."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.operators.array_file import read_arrays, read_reals
from diffusion_priors.operators.drawing import Drawing, root_sum_of_squares
from diffusion_priors.operators.linear import LinearOperator
from diffusion_priors.operators.spectrum import Orthogonal


class WalshHadamard(LinearOperator):
    """y = M ⊙ H D x0 per channel: random signs D, the orthonormal Walsh-Hadamard transform H, a random subset M of its rows.

    D and M are drawn for every image and shared by its channels; M keeps round(`keep` · H · W) rows, all sets of rows with
    the same probability (Do et al. 2012, local randomiser). The code of DDRM permutes the pixels in place of D and keeps the
    first rows. Rows are orthonormal: A Aᴴ = I on the kept ones, and A⁺ = Aᴴ. y is (B, C, H, W), 0 where it is not measured,
    and no image. `path` is a file with your own M instead, (H, W) and kept where it is not 0, the same for all images: an array
    called mask, or the only one. D are the signs of an array called signs beside it, and 1 without one.

    Raises ValueError where `keep` lies outside (0, 1], where a side is no power of two, where no row is kept, and for a file
    that holds no such arrays.
    """

    has_spectrum = True
    unit = "Walsh-Hadamard coefficients of [-1, 1] images"
    mask: Tensor
    signs: Tensor

    def __init__(self, keep: float = 0.25, path: str | None = None) -> None:
        super().__init__()
        if not 0.0 < keep <= 1.0:
            raise ValueError(f"the share of kept rows must lie above 0 and be at most 1, got {keep}; set operator.keep")
        self.keep, self.path, self.random = keep, path, path is None
        self.given = None if path is None else _read(path)
        for name in ("mask", "signs"):
            self.register_buffer(name, None, persistent=False)

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        height, width = like.shape[-2:]
        for side in (height, width):
            if side & (side - 1):
                raise ValueError(f"a side of {side} pixels is no power of two, as Walsh-Hadamard transforms need; set prior.size")
        mask, signs = self._drawn(height, width, generators) if self.given is None else self.given
        if mask.shape[-2:] != (height, width):
            raise ValueError(f"the rows {self.path} are of {mask.shape[-2:]} pixels and the images are {height, width}; set operator.path")
        self.mask, self.signs = (torch.from_numpy(part).to(like) for part in (mask, signs))
        return self

    def _drawn(self, height: int, width: int, generators: Sequence[Generator]) -> tuple[np.ndarray, np.ndarray]:
        """(M, D) for each image, (B, 1, H, W)."""
        count = round(self.keep * height * width)
        if count < 1:
            raise ValueError(f"keep={self.keep} keeps no row for a {height} x {width} image; raise operator.keep")
        rows = [(g.permutation(height * width) < count, g.integers(2, size=height * width)) for g in generators]
        mask, signs = (np.stack(part).reshape(-1, 1, height, width) for part in zip(*rows, strict=True))
        return mask, 2 * signs - 1

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

    def drawing(self, y: Tensor) -> Drawing:
        return Drawing.logarithmic("Walsh-Hadamard magnitude", "row", "column", root_sum_of_squares(y))

    def first_look(self, y: Tensor) -> tuple[str, Tensor]:
        """Aᴴy = A⁺y: what is not measured is taken for 0."""
        return "zero-filled", self.adjoint(y)

    def has_image_shape(self, y: Tensor) -> bool:
        """Never: y is no image, though it has the shape of one."""
        return False


def _read(path: str) -> tuple[np.ndarray, np.ndarray]:
    """(M, D), (1, 1, H, W), of a file."""
    mask = read_reals(path, "rows", ("H", "W"), "mask") != 0.0
    signs = np.ones(mask.shape)
    if "signs" in read_arrays(path, "rows"):
        signs = read_reals(path, "signs", ("H", "W"), "signs")
    if signs.shape != mask.shape or not mask.any() or not np.isin(signs, (-1.0, 1.0)).all():
        raise ValueError(
            f"the rows {path} must be a mask that is not 0 somewhere, and signs of -1 and 1 for the same pixels or none, "
            f"got a mask {mask.shape} with {mask.sum()} entries and signs {signs.shape}; set operator.path"
        )
    return mask[None, None], signs[None, None]


def walsh_hadamard(x: Tensor) -> Tensor:
    """The orthonormal transform of rows and columns, symmetric and its own inverse, by n log₂ n additions; sides are powers of two."""
    for axis in (-2, -1):
        side, half = x.shape[axis], 1
        while half < side:
            first, second = x.unflatten(axis, (side // (2 * half), 2, half)).unbind(axis - 1)
            x = torch.stack([first + second, first - second], axis - 1).flatten(axis - 2, axis)
            half *= 2
    return x / (x.shape[-2] * x.shape[-1]) ** 0.5
