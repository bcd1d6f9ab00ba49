"""Separable operators, y = R x Cᵀ with one matrix for rows and one for columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Generator, Tensor

from operators.base import LinearOperator

Boundary = Literal["circular", "reflect", "zero"]


class Separable(LinearOperator):
    """y = R x Cᵀ, Aᵀy = Rᵀ y C, A⁺y = R⁺ y C⁺ᵀ, per channel.

    A⁺ is in closed form, (R ⊗ C)⁺ = R⁺ ⊗ C⁺ (Golub & Van Loan 2013, Sec. 12.3), from the singular values of
    two small matrices in double precision; those below `cutoff` of the largest count as zero, so that
    ‖A A⁺ A − A‖ ≤ cutoff · (2 + cutoff) ‖A‖. A subclass gives `matrix`.
    """

    cutoff = 1e-5
    rows: Tensor
    columns: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("rows", "columns"):
            self.register_buffer(name, None, persistent=False)

    def matrix(self, side: int) -> np.ndarray:
        """The (side', side) matrix, double precision. Raises ValueError where `side` does not suit."""
        raise NotImplementedError

    def draw(self, like: Tensor, generators: Sequence[Generator]):
        super().draw(like, generators)
        self.rows, self.columns = (torch.from_numpy(self.matrix(side)).to(like) for side in like.shape[-2:])
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.rows @ x @ self.columns.mT

    def adjoint(self, y: Tensor) -> Tensor:
        return self.rows.mT @ y @ self.columns

    def pinv(self, y: Tensor) -> Tensor:
        inverses = (torch.linalg.pinv(torch.from_numpy(self.matrix(side)), rtol=self.cutoff) for side in self.image_shape[-2:])
        rows, columns = (inverse.to(y) for inverse in inverses)
        return rows @ y @ columns.mT


def banded(side: int, centres: np.ndarray, offsets: np.ndarray, weights: np.ndarray, boundary: Boundary) -> np.ndarray:
    """The matrix whose row j holds `weights[j]` at columns `centres[j] + offsets`, folded in at the boundary.

    centres (m,) integers, offsets (k,) integers, weights (m, k) → (m, side).
    """
    columns, inside = fold(centres[:, None] + offsets, side, boundary)
    matrix = np.zeros((len(centres), side))
    np.add.at(matrix, (np.arange(len(centres))[:, None], columns), np.where(inside, weights, 0.0))
    return matrix


def fold(index: np.ndarray, side: int, boundary: Boundary) -> tuple[np.ndarray, np.ndarray]:
    """Indices brought into 0 … side−1, and whether they carry anything (outside a zero boundary does not).

    `reflect` mirrors about the edge pixel, which is not repeated: −1 → 1.
    """
    if boundary == "circular":
        return index % side, np.ones_like(index, dtype=bool)
    if boundary == "zero":
        return index.clip(0, side - 1), (index >= 0) & (index < side)
    period = max(2 * (side - 1), 1)
    folded = index % period
    return np.minimum(folded, period - folded) if side > 1 else index * 0, np.ones_like(index, dtype=bool)
