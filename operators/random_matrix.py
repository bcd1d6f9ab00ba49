"""Random linear measurements: y = A x0 with a dense Gaussian matrix."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Self

import torch
from numpy.random import Generator, Philox
from torch import Tensor

from diffusion_priors.operators.array_file import read_reals
from diffusion_priors.operators.drawing import Drawing
from diffusion_priors.operators.linear import LinearOperator
from diffusion_priors.operators.spectrum import Dense


class RandomMatrix(LinearOperator):
    """y = A x0, A of `rows` rows with independent normal entries, the random sensing of Candès & Tao 2006, scaled to ‖A‖₂ = 1.

    A is a function of `seed` and the image's shape alone, the same for every image. `path` is a file with your own A instead,
    (rows, C · H · W), which is taken as it is: solvers expect ‖A‖₂ near 1. y is (B, 1, 1, rows).

    Raises ValueError for fewer than one row, more rows than an image has numbers, and a file that holds no such matrix.
    """

    has_spectrum = True
    matrix: Tensor

    def __init__(self, rows: int = 64, seed: int = 0, path: str | None = None) -> None:
        super().__init__()
        if rows < 1:
            raise ValueError(f"a random matrix needs at least one row, got {rows}; set operator.rows")
        if seed < 0:
            raise ValueError(f"a seed cannot be negative, got {seed}; set operator.seed")
        self.rows, self.seed, self.path = rows, seed, path
        self.given = None if path is None else read_reals(path, "matrix", ("rows", "C · H · W"))
        if self.given is not None:
            self.rows = len(self.given)
        self.prepared: dict[torch.Size, tuple[Tensor, Dense]] = {}
        self.register_buffer("matrix", None, persistent=False)

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        matrix, spectrum = self._prepare(like.shape[1:])
        self.matrix, self.drawn_spectrum = matrix.to(like), spectrum.to(like)
        return self

    def _prepare(self, shape: torch.Size) -> tuple[Tensor, Dense]:
        """A and its decomposition in double precision, computed once per image shape (C, H, W)."""
        side = prod(shape)
        if self.rows > side:
            raise ValueError(f"{self.rows} rows are more than an image's {side} numbers; set operator.rows={side} or fewer")
        if shape not in self.prepared:
            matrix = self._drawn(side) if self.given is None else torch.from_numpy(self.given)
            if matrix.shape[1] != side:
                raise ValueError(f"the matrix {self.path} has rows of {matrix.shape[1]} numbers, an image {side}; set operator.path")
            self.prepared = {shape: (matrix, Dense.of(matrix, shape))}
        return self.prepared[shape]

    def _drawn(self, side: int) -> Tensor:
        entries = torch.from_numpy(Generator(Philox(key=self.seed)).standard_normal((self.rows, side)))
        return entries / torch.linalg.matrix_norm(entries, 2)

    def forward(self, x0: Tensor) -> Tensor:
        return (x0.flatten(1) @ self.matrix.mT)[:, None, None]

    def adjoint(self, y: Tensor) -> Tensor:
        return (y.flatten(1) @ self.matrix).view(-1, *self.image_shape[1:])

    def spectrum(self) -> Dense:
        return self.drawn_spectrum

    def drawing(self, y: Tensor) -> Drawing:
        return Drawing.of_numbers("random projections", y)

    def has_image_shape(self, y: Tensor) -> bool:
        """Never: y is no image, even where it happens to have the shape of one."""
        return False
