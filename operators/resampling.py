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


class SuperResolutionBicubic(Separable):
    """y = the image reduced by `factor` with an antialiased cubic kernel, a = −1/2 (Keys 1981, Eq. 15).

    The kernel is stretched by the factor, as PIL's and MATLAB's resizing do; they differ at the boundary only, which is a
    parameter here. `boundary="symmetric"` repeats the edge pixel, as MATLAB's imresize and the resizer in the official
    code of DPS do; "reflect" does not, which changes the 2 pixels along each border of y.

    Raises ValueError where a side is no multiple of `factor`.
    """

    def __init__(self, factor: int = 4, boundary: Extension = "reflect") -> None:
        super().__init__()
        self.factor, self.boundary = _checked(factor), boundary

    def matrix(self, side: int) -> np.ndarray:
        small = _divided(side, self.factor)
        centres = (np.arange(small) + 0.5) * self.factor - 0.5
        left = np.ceil(centres - 2 * self.factor).astype(int)
        offsets = np.arange(4 * self.factor + 1)
        weights = cubic((left[:, None] + offsets - centres[:, None]) / self.factor)
        return banded(side, left, offsets, weights / weights.sum(1, keepdims=True), self.boundary)


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
