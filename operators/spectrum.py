"""Singular value decompositions A = U S Vᴴ that are applied, not stored: x0 in the coordinates of V, y in those of U.

All of them are real: images are, and for a complex y the decomposition is that of y's real and imaginary parts together.
Coefficients have the shape of x0. V is orthogonal, so white noise of unit variance stays white noise of unit variance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor


class Spectrum(Protocol):
    """`s` (broadcastable to x0) holds the singular values, 0 for coefficients that are not measured."""

    @property
    def s(self) -> Tensor: ...

    def analyse(self, x: Tensor) -> Tensor:
        """Vᴴx."""

    def synthesise(self, c: Tensor) -> Tensor:
        """V c."""

    def measured(self, y: Tensor) -> Tensor:
        """Uᴴy, 0 where s is 0: for y = A x0 + n it is s · Vᴴx0 + Uᴴn."""


@dataclass(frozen=True, eq=False)
class Diagonal:
    """A = diag(s), s ≥ 0: U = V = I."""

    s: Tensor

    def analyse(self, x: Tensor) -> Tensor:
        return x

    def synthesise(self, c: Tensor) -> Tensor:
        return c

    def measured(self, y: Tensor) -> Tensor:
        return torch.where(self.s > 0.0, y, 0.0)


@dataclass(frozen=True, eq=False)
class Fourier:
    """AᴴA is a circular convolution: V is the Hartley transform, s(ω) = s(−ω) ≥ 0 in the order of `fft2`.

    V c = Re F c − Im F c with F the orthonormal 2D FFT (Bracewell 1983). V is real, symmetric and its own inverse. Since
    it mixes ω with −ω only, it diagonalises what F diagonalises, as long as s(ω) = s(−ω). In place of n complex
    Fourier coefficients with a symmetry there are n real ones without: real white noise stays real white noise.
    `aligned`(y) = V Uᴴy, the part of y that A leaves unscaled (the polar factor of A, transposed).
    """

    s: Tensor
    aligned: Callable[[Tensor], Tensor]

    def analyse(self, x: Tensor) -> Tensor:
        c = torch.fft.fft2(x, norm="ortho")
        return c.real - c.imag

    def synthesise(self, c: Tensor) -> Tensor:
        return self.analyse(c)

    def measured(self, y: Tensor) -> Tensor:
        return torch.where(self.s > 0.0, self.analyse(self.aligned(y)), 0.0)


@dataclass(frozen=True, eq=False)
class Orthogonal:
    """V is an orthogonal transform with a fast algorithm: `forward`(x) = Vᴴx, `inverse`(c) = V c, `left`(y) = Uᴴy in the shape of x0."""

    s: Tensor
    forward: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]
    left: Callable[[Tensor], Tensor]

    def analyse(self, x: Tensor) -> Tensor:
        return self.forward(x)

    def synthesise(self, c: Tensor) -> Tensor:
        return self.inverse(c)

    def measured(self, y: Tensor) -> Tensor:
        return torch.where(self.s > 0.0, self.left(y), 0.0)


@dataclass(frozen=True, eq=False)
class Stored:
    """A decomposition whose factors are kept in double precision and rounded once per draw."""

    def to(self, like: Tensor) -> Self:
        return type(self)(*(getattr(self, field.name).to(like) for field in fields(self)))


@dataclass(frozen=True, eq=False)
class Kronecker(Stored):
    """A = R ⊗ C, y = R x Cᵀ: the decompositions of R (h', H) and C (w', W) combined (Golub & Van Loan 2013, Sec. 12.3).

    `left_rows` (h', min) and `left_columns` (w', min) are their U, `right_rows` (H, H) and `right_columns` (W, W) their V,
    `s` (H, W) the products of their singular values.
    """

    left_rows: Tensor
    left_columns: Tensor
    right_rows: Tensor
    right_columns: Tensor
    s: Tensor

    @classmethod
    def of(cls, rows: Tensor, columns: Tensor, cutoff: float) -> Self:
        """From the two matrices. Products of singular values below `cutoff` of the largest count as 0."""
        (left_r, s_r, right_r), (left_c, s_c, right_c) = (torch.linalg.svd(matrix, full_matrices=True) for matrix in (rows, columns))
        s = s_r[:, None] * s_c
        s = torch.where(s > cutoff * s.max(), s, 0.0)
        s = F.pad(s, (0, len(right_c) - s.shape[1], 0, len(right_r) - s.shape[0]))
        return cls(left_r[:, : len(s_r)], left_c[:, : len(s_c)], right_r.mT, right_c.mT, s)

    def analyse(self, x: Tensor) -> Tensor:
        return self.right_rows.mT @ x @ self.right_columns

    def synthesise(self, c: Tensor) -> Tensor:
        return self.right_rows @ c @ self.right_columns.mT

    def measured(self, y: Tensor) -> Tensor:
        c = self.left_rows.mT @ y @ self.left_columns
        c = F.pad(c, (0, self.s.shape[1] - c.shape[-1], 0, self.s.shape[0] - c.shape[-2]))
        return torch.where(self.s > 0.0, c, 0.0)


@dataclass(frozen=True, eq=False)
class Dense(Stored):
    """A (m, n), m ≤ n, on flattened images: Aᵀ = Q₁R and Rᵀ = U S Wᵀ give V = Q · diag(W, I).

    Q (n, n) is a product of m Householder reflections and is never formed. `s` is (C, H, W), n numbers.
    """

    reflectors: Tensor
    scales: Tensor
    left: Tensor
    right: Tensor
    s: Tensor

    @classmethod
    def of(cls, matrix: Tensor, shape: torch.Size) -> Self:
        """From A and the shape (C, H, W) of an image. Singular values at the level of rounding count as 0."""
        m, n = matrix.shape
        reflectors, scales = torch.geqrf(matrix.mT)
        left, s, right = torch.linalg.svd(reflectors[:m].triu().mT)
        s = torch.where(s > n * torch.finfo(s.dtype).eps * s[0], s, 0.0)
        return cls(reflectors, scales, left, right.mT, F.pad(s, (0, n - m)).view(shape))

    def analyse(self, x: Tensor) -> Tensor:
        c = torch.ormqr(self.reflectors, self.scales, x.flatten(1).mT, transpose=True)
        return torch.cat([self.right.mT @ c[: len(self.right)], c[len(self.right) :]]).mT.reshape(x.shape)

    def synthesise(self, c: Tensor) -> Tensor:
        rows = c.flatten(1).mT
        rows = torch.cat([self.right @ rows[: len(self.right)], rows[len(self.right) :]])
        return torch.ormqr(self.reflectors, self.scales, rows).mT.reshape(c.shape)

    def measured(self, y: Tensor) -> Tensor:
        c = F.pad(y.flatten(1) @ self.left, (0, self.s.numel() - len(self.left)))
        return torch.where(self.s > 0.0, c.view(-1, *self.s.shape), 0.0)
