"""Separable operators, y = R x Cᵀ with one matrix for rows and one for columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.operators.base import IMAGE_UNIT
from diffusion_priors.operators.linear import LinearOperator
from diffusion_priors.operators.spectrum import Kronecker

Boundary = Literal["circular", "reflect", "zero"]
Extension = Literal["circular", "reflect", "symmetric", "zero"]


class Separable(LinearOperator):
    """y = R x Cᵀ, Aᴴy = Rᵀ y C, A⁺y = R⁺ y C⁺ᵀ, per channel; y is an image, of the size of x0 or another.

    The singular values of R ⊗ C are the products of those of R and C, which are decomposed once per image size in
    double precision; products below `cutoff` of the largest count as 0, so that ‖A A⁺ A − A‖ ≤ cutoff ‖A‖.
    A subclass gives `matrix`.
    """

    has_spectrum = True
    unit = IMAGE_UNIT
    cutoff = 1e-5
    rows: Tensor
    columns: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("rows", "columns"):
            self.register_buffer(name, None, persistent=False)
        self.prepared: dict[tuple[int, int], tuple[Tensor, Tensor, Kronecker]] = {}

    def matrix(self, side: int) -> np.ndarray:
        """The (side', side) matrix, double precision. Raises ValueError where `side` does not suit."""
        raise NotImplementedError

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        rows, columns, spectrum = self._prepare(*like.shape[-2:])
        self.rows, self.columns, self.drawn_spectrum = rows.to(like), columns.to(like), spectrum.to(like)
        return self

    def _prepare(self, height: int, width: int) -> tuple[Tensor, Tensor, Kronecker]:
        """The two matrices and their decomposition in double precision, computed once per size."""
        if (height, width) not in self.prepared:
            rows, columns = torch.from_numpy(self.matrix(height)), torch.from_numpy(self.matrix(width))
            self.prepared = {(height, width): (rows, columns, Kronecker.of(rows, columns, self.cutoff))}
        return self.prepared[height, width]

    def forward(self, x0: Tensor) -> Tensor:
        return self.rows @ x0 @ self.columns.mT

    def adjoint(self, y: Tensor) -> Tensor:
        return self.rows.mT @ y @ self.columns

    def spectrum(self) -> Kronecker:
        return self.drawn_spectrum

    def as_image(self, y: Tensor) -> Tensor:
        return y


def banded(side: int, centres: np.ndarray, offsets: np.ndarray, weights: np.ndarray, boundary: Extension) -> np.ndarray:
    """The matrix whose row j holds `weights[j]` at columns `centres[j] + offsets`, folded in at the boundary.

    centres (m,) integers, offsets (k,) integers, weights (m, k) → (m, side).
    """
    columns, inside = fold(centres[:, None] + offsets, side, boundary)
    matrix = np.zeros((len(centres), side))
    np.add.at(matrix, (np.arange(len(centres))[:, None], columns), np.where(inside, weights, 0.0))
    return matrix


def fold(index: np.ndarray, side: int, boundary: Extension) -> tuple[np.ndarray, np.ndarray]:
    """Indices brought into 0 … side−1, and whether they carry anything (outside a zero boundary does not).

    `reflect` mirrors about the edge pixel, which is not repeated: −1 → 1. `symmetric` mirrors about the edge itself: −1 → 0.
    """
    if boundary == "circular":
        return index % side, np.ones_like(index, dtype=bool)
    if boundary == "zero":
        return index.clip(0, side - 1), (index >= 0) & (index < side)
    if boundary == "symmetric":
        folded = index % (2 * side)
        return np.minimum(folded, 2 * side - 1 - folded), np.ones_like(index, dtype=bool)
    period = max(2 * (side - 1), 1)
    folded = index % period
    return np.minimum(folded, period - folded) if side > 1 else index * 0, np.ones_like(index, dtype=bool)
