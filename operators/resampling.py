"""Super-resolution: y is a smaller image."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Self

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.operators.base import IMAGE_UNIT
from diffusion_priors.operators.blur import check_fits, filtered, response_of
from diffusion_priors.operators.kernel_file import KernelFile
from diffusion_priors.operators.linear import LinearOperator
from diffusion_priors.operators.separable import Extension, Separable, banded


class SuperResolution(Separable):
    """y = the mean of each `factor` × `factor` block; A⁺ repeats each pixel over its block.

    Raises ValueError where a side is no multiple of `factor`.
    """

    def __init__(self, factor: int = 4) -> None:
        super().__init__()
        self.factor = _checked(factor)

    def matrix(self, side: int) -> np.ndarray:
        small = _divided(side, self.factor)
        return np.kron(np.eye(small), np.full((1, self.factor), 1.0 / self.factor))


class Reduction(Separable):
    """y_j = Σ_i h((i − c_j)/factor) x_i, weights of sum 1, c_j = (j + ½) factor − ½: reduced with the antialiasing kernel h.

    The kernel is stretched by the factor, as PIL's and MATLAB's resizing do; they differ at the boundary only, which is a
    parameter here. `boundary="symmetric"` repeats the edge pixel, as MATLAB's imresize and the resizer in the official
    code of DPS do; "reflect" does not. A subclass gives h as `kernel` and its half-width in pixels of y as `radius`.

    Raises ValueError where a side is no multiple of `factor`.
    """

    radius: float

    def __init__(self, factor: int, boundary: Extension) -> None:
        super().__init__()
        self.factor, self.boundary = _checked(factor), boundary

    def kernel(self, x: np.ndarray) -> np.ndarray:
        """h(x) for |x| ≤ `radius`; its sum is free."""
        raise NotImplementedError

    def matrix(self, side: int) -> np.ndarray:
        small, reach = _divided(side, self.factor), self.radius * self.factor
        centres = (np.arange(small) + 0.5) * self.factor - 0.5
        left = np.ceil(centres - reach).astype(int)
        offsets = np.arange(int(2.0 * reach) + 1)
        x = (left[:, None] + offsets - centres[:, None]) / self.factor
        weights = np.where(np.abs(x) <= self.radius, self.kernel(x), 0.0)
        return banded(side, left, offsets, weights / weights.sum(1, keepdims=True), self.boundary)


class SuperResolutionBicubic(Reduction):
    """h is the cubic kernel with a = −1/2 (Keys 1981, Eq. 15)."""

    radius = 2.0

    def __init__(self, factor: int = 4, boundary: Extension = "reflect") -> None:
        super().__init__(factor, boundary)

    def kernel(self, x: np.ndarray) -> np.ndarray:
        return cubic(x)


class SuperResolutionLanczos(Reduction):
    """h(x) = sinc(x) sinc(x/a), |x| < a, with a = `lobes` (Duchon 1979). PIL's LANCZOS has 3.

    Raises ValueError for fewer than one lobe.
    """

    def __init__(self, factor: int = 4, lobes: int = 3, boundary: Extension = "reflect") -> None:
        super().__init__(factor, boundary)
        if lobes < 1:
            raise ValueError(f"a Lanczos kernel needs at least one lobe, got lobes={lobes}; set operator.lobes")
        self.radius = float(lobes)

    def kernel(self, x: np.ndarray) -> np.ndarray:
        return np.sinc(x) * np.sinc(x / self.radius)


class SuperResolutionGaussian(Reduction):
    """h(x) = exp(−x²/2·std²), |x| ≤ 4 std: the blur of a lens and a sensor, sampled. `std` in pixels of y.

    Raises ValueError for std ≤ 0, and where a pixel of y would see no pixel of the image.
    """

    def __init__(self, factor: int = 4, std: float = 0.5, boundary: Extension = "reflect") -> None:
        super().__init__(factor, boundary)
        if not 4.0 * std * factor >= 1.0:
            raise ValueError(f"a Gaussian of std={std} pixels of y is too narrow to see any pixel of x0; raise operator.std")
        self.std, self.radius = std, 4.0 * std

    def kernel(self, x: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * (x / self.std) ** 2)


class SuperResolutionBlur(LinearOperator):
    """y = S(k ∗ x0): a circular convolution, of which S keeps every `factor`-th row and column from the first one on.

    k is the file at `path`, read as `deblur_kernel` reads it, or a Gaussian of `std` pixels, cut off at 3 std. It is centred on the
    pixels kept, as in the codes of DPIR and DiffPIR, and not on the blocks as in the other operators: y is theirs, shifted
    by (factor − 1)/2 pixels. AAᴴ is a circular convolution of y whose transfer function is the mean of |k̂|² over the factor²
    frequencies that S folds into one (Zhao et al. 2016), which gives the inverses in closed form. Of its roots, the singular values,
    those below `cutoff` of the largest count as 0.

    Raises ValueError where a side is no multiple of `factor`, std is not positive, or the kernel cannot be read or is too large.
    """

    has_gram_inverse = True
    unit = IMAGE_UNIT
    cutoff = 1e-5
    response: Tensor
    gram: Tensor

    def __init__(self, factor: int = 4, std: float = 1.6, path: str | None = None) -> None:
        super().__init__()
        if not std > 0.0:
            raise ValueError(f"the Gaussian's standard deviation must be positive, got {std}; set operator.std")
        self.factor, self.std = _checked(factor), std
        self.file = None if path is None else KernelFile(path)
        for name in ("response", "gram"):
            self.register_buffer(name, None, persistent=False)

    def file_size(self, size: tuple[int, int]) -> tuple[int, int] | None:
        return None if self.file is None else self.file.file_size(size)

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        size = (like.shape[-2], like.shape[-1])
        for side in size:
            _divided(side, self.factor)
        kernel = self._gaussian() if self.file is None else self.file.at(size, self.fit)
        check_fits(kernel, size)
        response = response_of(kernel, size)  # in double precision: s² spans twice the digits of s
        gram = torch.fft.rfft2(self._kept(torch.fft.irfft2(response.abs().square(), s=size))).real
        gram = torch.where(gram > self.cutoff**2 * gram.max(), gram, 0.0)
        self.gram, self.response = gram.to(like), response.to(like.device, like.dtype.to_complex())
        return self

    def _gaussian(self) -> Tensor:
        reach = ceil(3.0 * self.std)
        taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / self.std).square())
        return torch.outer(taps, taps)[None, None] / taps.sum() ** 2

    def _kept(self, x: Tensor) -> Tensor:
        return x[..., :: self.factor, :: self.factor]

    def forward(self, x0: Tensor) -> Tensor:
        return self._kept(filtered(x0, self.response))

    def adjoint(self, y: Tensor) -> Tensor:
        spread = y.new_zeros(len(y), *self.image_shape[1:])
        self._kept(spread).copy_(y)
        return filtered(spread, self.response.conj())

    def gram_inverse(self, y: Tensor, weight: Tensor | float) -> Tensor:
        return filtered(y, torch.where(self.gram > 0.0, 1.0 / (self.gram + weight), 0.0))

    def as_image(self, y: Tensor) -> Tensor:
        return y


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = −1/2, support [−2, 2]."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1.0
    far = -0.5 * x**3 + 2.5 * x**2 - 4.0 * x + 2.0
    return np.where(x <= 1.0, near, np.where(x < 2.0, far, 0.0))


def _checked(factor: int) -> int:
    if factor < 2:
        raise ValueError(f"super-resolution needs a factor of at least 2, got {factor}; set operator.factor")
    return factor


def _divided(side: int, factor: int) -> int:
    if side % factor:
        raise ValueError(f"a side of {side} pixels is no multiple of the factor {factor}; set operator.factor or prior.size")
    return side // factor
