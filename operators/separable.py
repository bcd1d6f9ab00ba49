"""Separable operators, y = R x Cᵀ with one matrix for rows and one for columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.operators.base import LinearOperator

Boundary = Literal["circular", "reflect", "zero"]


class Separable(LinearOperator):
    """y = R x Cᵀ, Aᵀy = Rᵀ y C, A⁺y = R⁺ y C⁺ᵀ, per channel.

    A⁺ is in closed form: the singular values of R ⊗ C are the products of those of R and C (Golub & Van Loan
    2013, Sec. 12.3), which come from two small matrices in double precision; products below `cutoff` of the
    largest count as zero, so that ‖A A⁺ A − A‖ ≤ cutoff ‖A‖. A subclass gives `matrix`.
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
        parts = [torch.linalg.svd(torch.from_numpy(self.matrix(side)), full_matrices=False) for side in self.image_shape[-2:]]
        values = parts[0].S[:, None] * parts[1].S
        inverse = torch.where(values > self.cutoff * values.max(), 1.0 / values, 0.0).to(y)
        (left_r, right_r), (left_c, right_c) = ((part.U.to(y), part.Vh.to(y)) for part in parts)
        return right_r.mT @ (inverse * (left_r.mT @ y @ left_c)) @ right_c


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
