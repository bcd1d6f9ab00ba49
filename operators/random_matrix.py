"""Random linear measurements: y = A x0 with a dense Gaussian matrix."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from numpy.random import Generator, Philox
from torch import Tensor

from diffusion_priors.operators.base import LinearOperator


class RandomMatrix(LinearOperator):
    """y = A x0, A of `rows` rows with independent normal entries, the random sensing of Candès & Tao 2006, scaled to ‖A‖₂ = 1.

    A is a function of `seed` and the image's shape alone, the same for every image. y is (B, 1, 1, rows).
    Raises ValueError for fewer than one row, or more rows than an image has numbers.
    """

    matrix: Tensor
    inverse: Tensor

    def __init__(self, rows: int = 64, seed: int = 0) -> None:
        super().__init__()
        if rows < 1:
            raise ValueError(f"a random matrix needs at least one row, got {rows}; set operator.rows")
        if seed < 0:
            raise ValueError(f"a seed cannot be negative, got {seed}; set operator.seed")
        self.rows, self.seed = rows, seed
        self.source = torch.empty(0, 0, dtype=torch.float64)
        for name in ("matrix", "inverse"):
            self.register_buffer(name, None, persistent=False)

    def draw(self, like: Tensor, generators: Sequence[Generator]):
        super().draw(like, generators)
        side = prod(like.shape[1:])
        if self.rows > side:
            raise ValueError(f"{self.rows} rows are more than an image's {side} numbers; set operator.rows={side} or fewer")
        if self.source.shape[1] != side:
            entries = torch.from_numpy(Generator(Philox(key=self.seed)).standard_normal((self.rows, side)))
            self.source = entries / torch.linalg.matrix_norm(entries, 2)
        self.matrix, self.inverse = self.source.to(like), torch.linalg.pinv(self.source).to(like)
        return self

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.matrix.mT)[:, None, None]

    def adjoint(self, y: Tensor) -> Tensor:
        return (y.flatten(1) @ self.matrix).view(-1, *self.image_shape[1:])

    def pinv(self, y: Tensor) -> Tensor:
        return (y.flatten(1) @ self.inverse.mT).view(-1, *self.image_shape[1:])

    def as_image(self, y: Tensor) -> Tensor:
        """A⁺y, also where y happens to have the image's shape: it never is one."""
        return self.pinv(y)
