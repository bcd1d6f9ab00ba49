"""Covariances of images that are known through their eigenvalues."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffusion_priors.diffusion.analytic.linear_map import LinearMap

Gain = Callable[[Tensor], Tensor]
"""Eigenvalues → what each eigenvector is multiplied by."""


class Covariance(nn.Module):
    """S = U diag(λ) Uᵀ over images of `shape` = (C, H, W); any f(S) is U diag(f(λ)) Uᵀ. All in double precision.

    `values` are the eigenvalues, all C·H·W of them, in any shape.
    """

    shape: tuple[int, int, int]
    values: Tensor

    def transform(self, gain: Gain, x: Tensor) -> Tensor:
        """f(S) x for images (B, C, H, W), f acting on eigenvalues. It is symmetric, at half of what autograd spends on an FFT."""

        def product(given: Tensor) -> Tensor:
            return self.product(gain, given)

        return LinearMap.apply(x, product, product)

    def product(self, gain: Gain, x: Tensor) -> Tensor:
        raise NotImplementedError

    def dense(self) -> Tensor:
        """S as a matrix (D, D), D = C·H·W, pixels in the order of `flatten`."""
        side = self.values.numel()
        units = torch.eye(side, dtype=torch.float64, device=self.values.device)
        return self.transform(lambda values: values, units.view(side, *self.shape)).flatten(1)


class Dense(Covariance):
    """Any symmetric positive definite matrix (D, D), by its eigendecomposition.

    Raises ValueError where the matrix is not that, or does not fit images of `shape`.
    """

    vectors: Tensor

    def __init__(self, matrix: Tensor, shape: tuple[int, int, int]) -> None:
        super().__init__()
        side = shape[0] * shape[1] * shape[2]
        if tuple(matrix.shape) != (side, side):
            raise ValueError(
                f"a covariance of {shape[0]} x {shape[1]} x {shape[2]} images is a {side} x {side} matrix, "
                f"got {' x '.join(map(str, matrix.shape))}; set prior.size and prior.channels to fit it"
            )
        matrix = matrix.double()
        if not torch.allclose(matrix, matrix.mT, rtol=1e-6, atol=0.0):
            raise ValueError("a covariance is symmetric, and this one is not; average it with its transpose")
        values, vectors = torch.linalg.eigh(matrix)
        if not values[0] > 0.0:
            raise ValueError(
                f"a covariance is positive definite, and this one's least eigenvalue is {values[0]:.3g}; add a small multiple of 1"
            )
        self.shape = (shape[0], shape[1], shape[2])
        self.register_buffer("values", values)
        self.register_buffer("vectors", vectors)

    def product(self, gain: Gain, x: Tensor) -> Tensor:
        coefficients = (x.flatten(1) @ self.vectors) * gain(self.values)
        return (coefficients @ self.vectors.mT).view_as(x)


class Stationary(Covariance):
    """S = K ⊗ circ(P): a power spectrum over periodic images times a covariance of channels; diagonal in the FFT.

    `spectrum` (H, W) holds the eigenvalues of the pixels' part, by the frequencies of `torch.fft.fft2` (in its
    orthonormal scaling, so that its mean is a pixel's variance), `colour` (C, C) the channels' part.

    Raises ValueError where they are not symmetric and positive.
    """

    vectors: Tensor

    def __init__(self, spectrum: Tensor, colour: Tensor) -> None:
        super().__init__()
        spectrum, colour = spectrum.double(), colour.double()
        mirrored = spectrum.flip(-2, -1).roll((1, 1), (-2, -1))
        if not (spectrum > 0.0).all() or not torch.allclose(spectrum, mirrored):
            raise ValueError("a power spectrum is positive and the same at k and −k, as the spectrum of a real image is")
        values, vectors = torch.linalg.eigh(colour)
        if not values[0] > 0.0:
            raise ValueError(f"the channels' covariance must be positive definite, its least eigenvalue is {values[0]:.3g}")
        self.shape = (len(colour), *spectrum.shape)
        self.register_buffer("values", values[:, None, None] * spectrum)
        self.register_buffer("vectors", vectors)

    def product(self, gain: Gain, x: Tensor) -> Tensor:
        half = gain(self.values[..., : x.shape[-1] // 2 + 1])
        coefficients = torch.fft.rfft2(self._turned(x, self.vectors.mT)) * half
        return self._turned(torch.fft.irfft2(coefficients, s=x.shape[-2:]), self.vectors)

    def _turned(self, x: Tensor, matrix: Tensor) -> Tensor:
        return x if len(matrix) == 1 else torch.einsum("cd,bdhw->bchw", matrix, x)
