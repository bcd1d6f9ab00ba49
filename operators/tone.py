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


class Curve(Operator):
    """y = 2 f(l) − 1 with the light l = (x0 + 1)/2, pixel by pixel. Outside [`black`, 1] f continues as its tangent there."""

    unit = IMAGE_UNIT
    black = 0.0

    def curve(self, light: Tensor) -> Tensor:
        """f of l in [`black`, 1]."""
        raise NotImplementedError

    def inverse(self, value: Tensor) -> Tensor:
        """l of f in [f(`black`), 1]."""
        raise NotImplementedError

    def slope(self, light: Tensor) -> Tensor:
        """f′(l)."""
        raise NotImplementedError

    def forward(self, x0: Tensor) -> Tensor:
        light = (x0 + 1.0) / 2.0
        inside = light.clamp(self.black, 1.0)
        return 2.0 * (self.curve(inside) + self.slope(inside) * (light - inside)) - 1.0

    def initial_image(self, y: Tensor) -> Tensor:
        """The inverse of y. A value above white is taken for white: where f is flat its noise would be magnified."""
        value = ((y + 1.0) / 2.0).clamp_max(1.0)
        inside = value.clamp_min(self.curve(value.new_tensor(self.black)).item())
        light = self.inverse(inside)
        return 2.0 * (light + (value - inside) / self.slope(light)) - 1.0


class Gamma(Curve):
    """y = 2 l^γ − 1 with the light l = (x0 + 1)/2: γ > 1 darkens, γ < 1 brightens; 2.2 is about what a display does.

    Below `black` and above 1 the curve is its tangent: for γ < 1 its slope would be infinite at 0, for γ > 1 it would grow without
    bound. Raises ValueError for γ outside [0.1, 10].
    """

    black = 1e-3

    def __init__(self, gamma: float = 2.2) -> None:
        super().__init__()
        if not 0.1 <= gamma <= 10.0:
            raise ValueError(f"gamma must lie between 0.1 and 10, got {gamma}; set operator.gamma")
        self.gamma = gamma

    def curve(self, light: Tensor) -> Tensor:
        return light.pow(self.gamma)

    def inverse(self, value: Tensor) -> Tensor:
        return value.pow(1.0 / self.gamma)

    def slope(self, light: Tensor) -> Tensor:
        return self.gamma * light.pow(self.gamma - 1.0)


class Saturation(Curve):
    """y = 2 (1 − e^{−k l})/(1 − e^{−k}) − 1 with the light l = (x0 + 1)/2: a sensor that fills up, k its `strength`.

    Bright values are pressed together, so that noise hides their differences. Darker than black and brighter than white the curve
    is its tangent. Raises ValueError for a strength outside (0, 20].
    """

    def __init__(self, strength: float = 2.0) -> None:
        super().__init__()
        if not 0.0 < strength <= 20.0:
            raise ValueError(f"the strength of the saturation must lie between 0 and 20, got {strength}; set operator.strength")
        self.strength, self.white = strength, 1.0 - exp(-strength)

    def curve(self, light: Tensor) -> Tensor:
        return (1.0 - (-self.strength * light).exp()) / self.white

    def inverse(self, value: Tensor) -> Tensor:
        return -torch.log1p(-self.white * value) / self.strength

    def slope(self, light: Tensor) -> Tensor:
        return self.strength / self.white * (-self.strength * light).exp()
