"""A nonlinear blur: light adds up, and image files do not hold light."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Self

import torch
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.operators.base import IMAGE_UNIT, Operator
from diffusion_priors.operators.blur import DeblurGaussian
from diffusion_priors.operators.separable import Boundary


class BlurNonlinear(Operator):
    """y = e(min(gain · k ∗ d(x0), 1)): d decodes sRGB to linear light, k is a Gaussian, the sensor fills up at 1, e encodes sRGB.

    This is how a lens out of focus blurs a photo: bright points spread more than a blur of the encoded values says. It is not
    the neural blur that DPS and DAPS call nonlinear, whose weights are not to be had; results of the two do not compare.

    `size` taps of standard deviation `std` pixels, as in deblur_gaussian. Raises ValueError where gain is not positive, and
    as DeblurGaussian does. An image to start from is y.
    """

    unit = IMAGE_UNIT

    def __init__(self, size: int = 9, std: float = 1.5, gain: float = 1.2, boundary: Boundary = "reflect") -> None:
        super().__init__()
        if not 0.0 < gain < inf:
            raise ValueError(f"the gain of the exposure must be positive, got {gain}; set operator.gain")
        self.gain, self.blur = gain, DeblurGaussian(size, std, boundary)

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        self.blur.draw(like, generators)
        return self

    def forward(self, x0: Tensor) -> Tensor:
        return encode((self.gain * self.blur(decode(x0))).clamp_max(1.0))

    def initial_image(self, y: Tensor) -> Tensor:
        return y


def decode(x: Tensor) -> Tensor:
    """sRGB in [-1, 1] → linear light in [0, 1] (IEC 61966-2-1); linear below black."""
    value = (x + 1.0) / 2.0
    return torch.where(value > 0.04045, ((value.clamp_min(0.04045) + 0.055) / 1.055).pow(2.4), value / 12.92)


def encode(light: Tensor) -> Tensor:
    """Linear light in [0, 1] → sRGB in [-1, 1]; linear below black."""
    value = torch.where(light > 0.0031308, 1.055 * light.clamp_min(0.0031308).pow(1.0 / 2.4) - 0.055, 12.92 * light)
    return 2.0 * value - 1.0
