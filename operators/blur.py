"""Blur: y = k ∗ x0, a true convolution (the kernel is flipped), the image continued at its boundary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.images.fit import resized_kernel
from diffusion_priors.operators.base import IMAGE_UNIT, uniform
from diffusion_priors.operators.kernel_file import read_kernel
from diffusion_priors.operators.linear import LinearOperator
from diffusion_priors.operators.separable import Boundary, Separable, banded
from diffusion_priors.operators.spectrum import Fourier, Spectrum


class DeblurGaussian(Separable):
    """k(i) ∝ exp(−i²/2·std²) on `size` taps, rows and columns alike. DPS on 256 pixels: size 61, std 3.

    `std` in pixels. Raises ValueError for an even size, a size beyond the image, or std ≤ 0.
    """

    def __init__(self, size: int = 9, std: float = 1.5, boundary: Boundary = "reflect") -> None:
        super().__init__()
        if size < 1 or size % 2 == 0:
            raise ValueError(f"a Gaussian kernel needs an odd, positive number of taps, got size={size}; set operator.size")
        if not std > 0.0:
            raise ValueError(f"the Gaussian's standard deviation must be positive, got {std}; set operator.std")
        self.size, self.std, self.boundary = size, std, boundary

    def matrix(self, side: int) -> np.ndarray:
        if self.size > side:
            raise ValueError(f"a kernel of {self.size} taps is larger than an image side of {side} pixels; set operator.size")
        offsets = np.arange(self.size) - self.size // 2
        taps = np.exp(-0.5 * (offsets / self.std) ** 2)
        return banded(side, np.arange(side), offsets, np.tile(taps / taps.sum(), (side, 1)), self.boundary)


class Convolution(LinearOperator):
    """y_i = Σ_j k_j x_{i−(j−c)}, c = size // 2, by FFT; any kernel, (B or 1, 1, h, w): one per image or one for all.

    With the circular boundary Aᴴ and the spectrum are in closed form in the Fourier domain (singular values below `cutoff`
    of the largest count as 0); with reflect and zero, Aᴴ comes from autograd and inverses from conjugate gradients.
    `reflect` mirrors about the edge pixel, which is not repeated.
    """

    unit = IMAGE_UNIT
    cutoff = 1e-5
    kernel: Tensor
    response: Tensor

    def __init__(self, boundary: Boundary) -> None:
        super().__init__()
        self.boundary, self.has_spectrum = boundary, boundary == "circular"
        for name in ("kernel", "response"):
            self.register_buffer(name, None, persistent=False)

    def set_kernel(self, kernel: Tensor, like: Tensor) -> None:
        """Take `kernel` (B or 1, 1, h, w) for images like `like`. Raises ValueError where it is larger than they are."""
        (h, w), (height, width) = kernel.shape[-2:], like.shape[-2:]
        if h > height or w > width:
            raise ValueError(f"a {h} x {w} kernel is larger than the {height} x {width} image; use a smaller kernel or a larger prior.size")
        if self.boundary != "circular":
            height, width = height + h - 1, width + w - 1
        self.kernel = kernel.to(like)
        origin_first = F.pad(self.kernel, (0, width - w, 0, height - h)).roll((-(h // 2), -(w // 2)), (-2, -1))
        self.response = torch.fft.rfft2(origin_first)

    def forward(self, x0: Tensor) -> Tensor:
        if self.boundary == "circular":
            return _filter(x0, self.response)
        (h, w), (height, width) = self.kernel.shape[-2:], x0.shape[-2:]
        top, left = h - 1 - h // 2, w - 1 - w // 2
        continued = F.pad(x0, (left, w // 2, top, h // 2), mode="constant" if self.boundary == "zero" else "reflect")
        return _filter(continued, self.response)[..., top : top + height, left : left + width]

    def adjoint(self, y: Tensor) -> Tensor:
        if self.boundary != "circular":
            return super().adjoint(y)
        return _filter(y, self.response.conj())

    def spectrum(self) -> Spectrum:
        """s = |k̂|; y is aligned with x0 by the conjugate phase of k̂."""
        if self.boundary != "circular":
            return super().spectrum()
        s = torch.fft.fft2(torch.fft.irfft2(self.response, s=self.image_shape[-2:])).abs()
        s = torch.where(s > self.cutoff * s.amax((-2, -1), keepdim=True), s, 0.0)
        conjugate_phase = torch.polar(torch.ones_like(self.response.real), -self.response.angle())
        return Fourier(s, lambda y: _filter(y, conjugate_phase))


def _filter(x: Tensor, response: Tensor) -> Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(x) * response, s=x.shape[-2:])


class DeblurKernel(Convolution):
    """The kernel is a file: an .npy array (h, w), taken as it is, or a grey image, scaled to sum 1.

    A kernel that is larger than the images follows the resize of the image files, which must then all have its size.

    Raises ValueError where it cannot be read, is no kernel (see `read_kernel`) or cannot follow.
    """

    def __init__(self, path: str, boundary: Boundary = "reflect") -> None:
        super().__init__(boundary)
        self.path, self.source = path, read_kernel(path)
        self.fitted: dict[tuple[int, int], Tensor] = {}

    def file_size(self, size: tuple[int, int]) -> tuple[int, int] | None:
        height, width = self.source.shape
        return None if height <= size[0] and width <= size[1] else (height, width)

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        size = (like.shape[-2], like.shape[-1])
        if size not in self.fitted:
            self.fitted[size] = torch.from_numpy(self.source if self.file_size(size) is None else self._follow(size))[None, None]
        self.set_kernel(self.fitted[size], like)
        return self

    def _follow(self, size: tuple[int, int]) -> np.ndarray:
        height, width = self.source.shape
        if self.fit is None:
            return self.source
        try:
            box = self.fit.box(height, width, size)
        except ValueError as error:
            raise ValueError(f"the kernel {self.path} is larger than the images: {error}") from error
        return resized_kernel(self.source, box, size)


class DeblurAnisotropic(Convolution):
    """k(i) ∝ exp(−½ iᵀΣ⁻¹i) on `size` × `size` taps, Σ = R diag(stds²) Rᵀ: a Gaussian of two widths.

    The first of `stds`, in pixels, is that along the direction `angle`, in degrees anticlockwise from the rows as one looks
    at the image; the second is that across. The code of DDRM blurs rows and columns by 1 and 20 pixels, cut to 9 taps.

    Raises ValueError for an even size, or a std ≤ 0.
    """

    def __init__(self, size: int = 9, stds: tuple[float, float] = (2.0, 0.7), angle: float = 45.0, boundary: Boundary = "reflect") -> None:
        super().__init__(boundary)
        if size < 1 or size % 2 == 0:
            raise ValueError(f"a Gaussian kernel needs an odd, positive number of taps, got size={size}; set operator.size")
        if not min(stds) > 0.0:
            raise ValueError(f"both standard deviations must be positive, got {list(stds)}; set operator.stds=[along,across]")
        self.size, self.stds, self.angle = size, stds, angle

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        offsets, angle = np.arange(self.size) - self.size // 2, np.deg2rad(self.angle)
        up, right = -offsets[:, None], offsets
        along, across = right * np.cos(angle) + up * np.sin(angle), up * np.cos(angle) - right * np.sin(angle)
        kernel = np.exp(-0.5 * ((along / self.stds[0]) ** 2 + (across / self.stds[1]) ** 2))
        self.set_kernel(torch.from_numpy(kernel / kernel.sum())[None, None], like)
        return self


class DeblurMotion(Convolution):
    """A camera shake of its own for every image: a random path of `size` × `size` pixels, drawn from its generator.

    The camera moves at constant speed while its heading does a random walk whose strength is `intensity`:
    0 is a straight line, 1 a tangle; the path is size − 3 pixels long and is splatted bilinearly.
    DPS on 256 pixels: size 61, intensity 0.5 (its kernels come from another generator, unseeded).

    Raises ValueError for an even size or one below 5, or an intensity outside [0, 1].
    """

    random = True
    points = 256

    def __init__(self, size: int = 15, intensity: float = 0.5, boundary: Boundary = "reflect") -> None:
        super().__init__(boundary)
        if size < 5 or size % 2 == 0:
            raise ValueError(f"a motion kernel needs an odd side of at least 5 pixels, got size={size}; set operator.size")
        if not 0.0 <= intensity <= 1.0:
            raise ValueError(f"the intensity must lie in [0, 1], got {intensity}; set operator.intensity")
        self.size, self.intensity = size, intensity

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        turns = uniform(generators, self.points, like=torch.zeros((), dtype=torch.float64)) - 0.5
        drift = self.intensity * 2.0 * torch.pi / (self.points / 12) ** 0.5
        heading = 2.0 * torch.pi * turns[:, :1] + (drift * turns[:, 1:]).cumsum(1)
        path = torch.stack([heading.sin(), heading.cos()], dim=-1).cumsum(1) * (self.size - 3) / (self.points - 2)
        path = path - (path.amin(1, keepdim=True) + path.amax(1, keepdim=True)) / 2 + self.size // 2
        self.set_kernel(splat(path, self.size), like)
        return self


def splat(path: Tensor, size: int) -> Tensor:
    """Points (B, N, 2) in pixel coordinates → kernels (B, 1, size, size) of sum 1, each point shared by four pixels."""
    centres = torch.arange(size, dtype=path.dtype)
    rows, columns = ((1.0 - (path[..., axis, None] - centres).abs()).clamp_min(0.0) for axis in (0, 1))
    kernel = torch.einsum("bnh,bnw->bhw", rows, columns)
    return (kernel / kernel.sum((-2, -1), keepdim=True))[:, None]
