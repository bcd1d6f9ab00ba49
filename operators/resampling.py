"""Super-resolution: y is a smaller image."""

from __future__ import annotations

import numpy as np

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
