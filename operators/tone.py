"""Curves that change brightness pixel by pixel: exposure with clipping, gamma, saturation. All of them are nonlinear."""

from __future__ import annotations

from math import exp, inf

import torch
from torch import Tensor

from diffusion_priors.operators.base import IMAGE_UNIT, Operator


class HDR(Operator):
    """y = clip(gain · x0, −1, 1): an overexposed photo, of which high dynamic range is to be restored. DAPS has gain 2.

    x0 stays in [-1, 1]; what is brighter than 1/gain or darker than −1/gain is lost. Where y is clipped the gradient is 0.
    An image to start from is y/gain. Raises ValueError for a gain that is not above 1.
    """

    unit = IMAGE_UNIT

    def __init__(self, gain: float = 2.0) -> None:
        super().__init__()
        if not 1.0 < gain < inf:
            raise ValueError(f"a gain of 1 or less clips nothing, got {gain}; set operator.gain")
        self.gain = gain

    def forward(self, x0: Tensor) -> Tensor:
        return (self.gain * x0).clamp(-1.0, 1.0)

    def initial_image(self, y: Tensor) -> Tensor:
        return y / self.gain


class Gamma(Operator):
    """y = 2 l^γ − 1 with the light l = (x0 + 1)/2: γ > 1 darkens, γ < 1 brightens; 2.2 is about what a display does.

    Below `toe` the curve is its tangent there: for γ < 1 its slope would be infinite at black, for γ > 1 it would be 0 below.
    An image to start from is the inverse of y. Raises ValueError for γ outside [0.1, 10].
    """

    unit = IMAGE_UNIT
    toe = 1e-3

    def __init__(self, gamma: float = 2.2) -> None:
        super().__init__()
        if not 0.1 <= gamma <= 10.0:
            raise ValueError(f"gamma must lie between 0.1 and 10, got {gamma}; set operator.gamma")
        self.gamma = gamma
        self.at_toe, self.slope = self.toe**gamma, gamma * self.toe ** (gamma - 1.0)

    def forward(self, x0: Tensor) -> Tensor:
        light = (x0 + 1.0) / 2.0
        curve = light.clamp_min(self.toe).pow(self.gamma)
        return 2.0 * torch.where(light > self.toe, curve, self.at_toe + self.slope * (light - self.toe)) - 1.0

    def initial_image(self, y: Tensor) -> Tensor:
        value = (y + 1.0) / 2.0
        light = value.clamp_min(self.at_toe).pow(1.0 / self.gamma)
        return 2.0 * torch.where(value > self.at_toe, light, self.toe + (value - self.at_toe) / self.slope) - 1.0


class Saturation(Operator):
    """y = 2 (1 − e^{−k l})/(1 − e^{−k}) − 1 with the light l = (x0 + 1)/2: a sensor that fills up, k its `strength`.

    Bright values are pressed together, so that noise hides their differences. An image to start from is the inverse of y.
    Raises ValueError for a strength outside (0, 20].
    """

    unit = IMAGE_UNIT

    def __init__(self, strength: float = 4.0) -> None:
        super().__init__()
        if not 0.0 < strength <= 20.0:
            raise ValueError(f"the strength of the saturation must lie between 0 and 20, got {strength}; set operator.strength")
        self.strength, self.white = strength, 1.0 - exp(-strength)

    def forward(self, x0: Tensor) -> Tensor:
        return 2.0 * (1.0 - (-self.strength * (x0 + 1.0) / 2.0).exp()) / self.white - 1.0

    def initial_image(self, y: Tensor) -> Tensor:
        """Values beyond white are taken for white."""
        filled = self.white * ((y + 1.0) / 2.0).clamp_max(1.0)
        return -2.0 / self.strength * torch.log1p(-filled) - 1.0
