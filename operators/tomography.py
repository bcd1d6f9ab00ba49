"""Computed tomography: y are the integrals of an image along parallel rays, from several directions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import ceil
from typing import Self

import numpy as np
import torch
from numpy.random import Generator
from scipy.sparse import coo_array, csr_array, vstack
from scipy.sparse.linalg import svds
from torch import Tensor

from diffusion_priors.operators.array_file import read_reals
from diffusion_priors.operators.drawing import Drawing
from diffusion_priors.operators.linear import LinearOperator


class Tomography(LinearOperator):
    """y(θ, s) = Σ_t x0(c + s (cos θ, −sin θ) + t (sin θ, cos θ))/‖R‖ per channel: the discrete Radon transform R, with norm 1.

    A ray is sampled at unit steps t; between pixels x0 is interpolated linearly, outside the image it is 0. The pixel
    c = (W // 2, H // 2) is the centre of rotation, and D detectors s cover the longest diagonal, as in scikit-image's `radon`
    with circle=False. R is built once per size as a sparse matrix, so that the adjoint is exact; inverses are iterated.

    `angles` directions lie evenly over `span` degrees, from 0 on; less than 180 is limited-angle tomography. `path` is an
    .npy file of angles in degrees instead. Rays see x0 in [-1, 1], where −1 is no absorption: light that is not negative adds
    the constant A(1). y is (B, C, angles, D), and no image. Raises ValueError for fewer than one angle, and for a span
    outside (0, 180].
    """

    unit = "normalised projections of [-1, 1] images"

    def __init__(self, angles: int = 30, span: float = 180.0, path: str | None = None) -> None:
        super().__init__()
        if angles < 1:
            raise ValueError(f"tomography needs at least one angle, got {angles}; set operator.angles")
        if not 0.0 < span <= 180.0:
            raise ValueError(f"the angles must span more than 0 and at most 180 degrees, got {span}; set operator.span")
        self.degrees = np.arange(angles) * span / angles if path is None else read_reals(path, "angles", ("angles",))
        self.prepared: dict[tuple[int, int], tuple[csr_array, float]] = {}

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        size = (like.shape[-2], like.shape[-1])
        if size not in self.prepared:
            self.prepared = {size: normalised(radon_matrix(*size, self.degrees))}
        matrix, self.norm = self.prepared[size]
        self.rays, self.pixels = sparse(matrix, like), sparse(csr_array(matrix.T), like)
        return self

    def forward(self, x0: Tensor) -> Tensor:
        return _product(self.rays, x0).view(len(x0), -1, len(self.degrees), detectors(*self.image_shape[-2:]))

    def adjoint(self, y: Tensor) -> Tensor:
        return _product(self.pixels, y).view(len(y), -1, *self.image_shape[-2:])

    def filtered_back_projection(self, y: Tensor) -> Tensor:
        """x ≈ π/(number of angles) Rᵀ(h ∗ Rx), h the ramp filter |f| (Kak & Slaney 1988, Sec. 3.3): a quick look, no pseudo-inverse.

        It is applied to the projections of x0 + 1, light that is 0 outside the image.
        """
        light = y + self(torch.ones_like(self.adjoint(y)))
        count = light.shape[-1]
        n = torch.arange(-count, count, device=y.device)
        ramp = torch.where(n % 2 == 0, 0.0, -1.0 / (torch.pi * n).square().clamp_min(1.0)).to(light)
        ramp[count] = 0.25
        response = torch.fft.rfft(ramp.roll(-count)).real
        filtered = torch.fft.irfft(torch.fft.rfft(light, 2 * count) * response, 2 * count)[..., :count]
        return self.adjoint(filtered) * (torch.pi / len(self.degrees) * self.norm**2) - 1.0

    def drawing(self, y: Tensor) -> Drawing:
        """The absorption: y + A(1), which is 0 where a ray misses the image."""
        absorption = (y + self(torch.ones_like(self.adjoint(y)))).mean(1)
        angles = f"{self.degrees[0]:g}° to {self.degrees[-1]:g}°"
        return Drawing.linear("sinogram", angles, "detector", absorption)

    def first_look(self, y: Tensor) -> tuple[str, Tensor]:
        return "filtered back projection", self.filtered_back_projection(y)

    def has_image_shape(self, y: Tensor) -> bool:
        """Never: a sinogram is no image, even where it happens to have the shape of one."""
        return False


def detectors(height: int, width: int) -> int:
    """The number of detectors: the diagonal of the square around the image."""
    side = max(height, width)
    return side + ceil(2.0**0.5 * side - side)


def radon_matrix(height: int, width: int, degrees: np.ndarray) -> csr_array:
    """R (angles · detectors, height · width): four pixels share each sample of a ray."""
    count = detectors(height, width)
    s, t = np.meshgrid(np.arange(count) - count // 2, np.arange(count) - count // 2, indexing="ij")
    rays = np.broadcast_to(np.arange(count)[:, None], s.shape)
    blocks = []
    for angle in np.deg2rad(degrees):
        x = width // 2 + s * np.cos(angle) + t * np.sin(angle)
        y = height // 2 - s * np.sin(angle) + t * np.cos(angle)
        left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        entries = []
        for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
            weight = (1.0 - np.abs(x - column)) * (1.0 - np.abs(y - row))
            kept = (row >= 0) & (row < height) & (column >= 0) & (column < width) & (weight > 0.0)
            entries.append((weight[kept], rays[kept], (row * width + column)[kept]))
        values, ray, pixel = (np.concatenate(part) for part in zip(*entries, strict=True))
        blocks.append(coo_array((values, (ray, pixel)), shape=(count, height * width)).tocsr())
    return csr_array(vstack(blocks))


def normalised(matrix: csr_array) -> tuple[csr_array, float]:
    """(the matrix over its largest singular value, that value). Entries are at least 0, and so is the vector of that value."""
    if min(matrix.shape) == 1:
        norm = np.sqrt(matrix.multiply(matrix).sum())
    else:
        norm = svds(matrix, k=1, v0=np.ones(min(matrix.shape)), return_singular_vectors=False)[0]
    return matrix / norm, float(norm)


def sparse(matrix: csr_array, like: Tensor) -> Tensor:
    """The matrix as a tensor with the type and device of `like`."""
    starts, columns = (torch.from_numpy(part.astype(np.int64)) for part in (matrix.indptr, matrix.indices))
    values = torch.from_numpy(matrix.data)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # torch calls the format a beta; only its product is used
        return torch.sparse_csr_tensor(starts, columns, values, size=matrix.shape, check_invariants=False).to(like)


def _product(matrix: Tensor, x: Tensor) -> Tensor:
    """The matrix times each channel of each image, (B · C, rows)."""
    return (matrix @ x.flatten(2).flatten(0, 1).mT).mT.contiguous()
