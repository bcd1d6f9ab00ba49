"""Curves of brightness: their values in closed form, their inverses, and where their slopes end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from operator_cases import generators, measurement, random_images

from diffusion_priors.operators.blur import DeblurGaussian
from diffusion_priors.operators.blur_nonlinear import BlurNonlinear, decode, encode
from diffusion_priors.operators.tone import HDR, Gamma, Saturation


def test_an_overexposed_photo_is_clipped_on_both_sides():
    """DAPS's clip(2 x, −1, 1); an estimate in a clipped area has no gradient, and the image to start from explains y."""
    x = torch.tensor([-1.0, -0.6, -0.5, -0.2, 0.0, 0.3, 0.5, 0.8, 1.0], dtype=torch.float64).view(1, 1, 3, 3)
    operator = HDR().draw(x, generators([0]))
    y = operator(x)
    expected = torch.tensor([-1.0, -1.0, -1.0, -0.4, 0.0, 0.6, 1.0, 1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(y.flatten(), expected, rtol=0, atol=1e-15)
    assert torch.equal(operator(operator.initial_image(y)), y)
    gradient = measurement(operator, y - 0.1).squared_residual_gradient(x).flatten()
    assert (gradient[expected.abs() == 1.0][[0, 1, -2, -1]] == 0.0).all()
    torch.testing.assert_close(gradient[3:6], torch.full((3,), 2 * 2.0 * 0.1, dtype=torch.float64))


@pytest.mark.parametrize("gamma", [0.45, 1.0, 2.2])
def test_gamma_is_a_power_of_the_light_and_straight_outside(gamma):
    """2 ((x + 1)/2)^γ − 1 from a thousandth of white to white; its tangents below and above. An image above white is taken for white."""
    operator, x = Gamma(gamma), torch.linspace(-1.2, 1.2, 241, dtype=torch.float64).view(1, 1, 1, -1)
    y, light = operator(x), (x + 1.0) / 2.0
    below, above = light <= 1e-3, light > 1.0
    inside = ~below & ~above
    torch.testing.assert_close(y[inside], 2.0 * light[inside].pow(gamma) - 1.0, rtol=1e-12, atol=1e-12)
    tangent = 1e-3**gamma + gamma * 1e-3 ** (gamma - 1) * (light - 1e-3)
    torch.testing.assert_close(y[below], 2.0 * tangent[below] - 1.0, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(y[above], 2.0 * (1.0 + gamma * (light[above] - 1.0)) - 1.0, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(operator.initial_image(y), x.clamp_max(1.0), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("strength", [0.01, 4.0])
def test_a_sensor_saturates_exponentially(strength):
    """2 (1 − e^{−k l})/(1 − e^{−k}) − 1: black and white stay, and a weak one changes nothing."""
    operator, x = Saturation(strength), torch.linspace(-1.0, 1.0, 101, dtype=torch.float64).view(1, 1, 1, -1)
    y = operator(x)
    expected = 2.0 * np.expm1(-strength * (x.numpy() + 1.0) / 2.0) / np.expm1(-strength) - 1.0
    torch.testing.assert_close(y, torch.tensor(expected), rtol=1e-10, atol=1e-10)
    assert ((y - x).abs().max() < 0.01) == (strength < 0.1)
    torch.testing.assert_close(operator.initial_image(y), x, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(operator.initial_image(y + 0.5)[y + 0.5 >= 1.0], torch.ones_like(y)[y + 0.5 >= 1.0], rtol=0, atol=1e-9)
    outside = torch.tensor([-3.0, 3.0], dtype=torch.float64).view(1, 1, 1, 2)
    slope = strength / -np.expm1(-strength)
    lines = torch.tensor([-1.0 - 2.0 * slope, 1.0 + 2.0 * slope * np.exp(-strength)], dtype=torch.float64).view(1, 1, 1, 2)
    torch.testing.assert_close(operator(outside), lines, rtol=1e-9, atol=1e-9)


def test_light_adds_up_in_a_nonlinear_blur():
    """Half black, half white pixels blur to sRGB 188 of 255; a blur of the file's values says 128. Without blur nothing changes."""
    x = 2.0 * (torch.arange(24)[:, None] + torch.arange(24))[None, None].remainder(2).double() - 1.0
    y = BlurNonlinear(9, 3.0, 1.0).draw(x, generators([0]))(x)
    assert ((y[..., 8:16, 8:16] + 1.0) * 127.5 - 187.5).abs().max() < 0.6
    x = random_images(2, 3, 12, 14)
    torch.testing.assert_close(BlurNonlinear(1, 1.0, 1.0).draw(x, generators((0, 1)))(x), x, rtol=1e-6, atol=1e-6)


def test_the_nonlinear_blur_is_blur_in_linear_light_and_a_full_sensor():
    x = random_images(2, 3, 20, 16)
    operator = BlurNonlinear(5, 1.2, 3.0, "circular").draw(x, generators((0, 1)))
    srgb = (x.numpy() + 1.0) / 2.0
    light = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    blurred = DeblurGaussian(5, 1.2, "circular").draw(x, generators((0, 1)))(torch.tensor(light)).numpy()
    seen = np.minimum(3.0 * blurred, 1.0)
    expected = 2.0 * np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055) - 1.0
    np.testing.assert_allclose(operator(x).numpy(), expected, atol=1e-12)
    assert (seen == 1.0).any() and (seen < 1.0).any()


def test_srgb_and_light_are_inverse_to_each_other_also_below_black():
    x = torch.linspace(-1.1, 1.0, 301, dtype=torch.float64)
    torch.testing.assert_close(encode(decode(x)), x, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: HDR(1.0), r"got 1\.0; set operator\.gain"),
        (lambda: Gamma(0.0), r"got 0\.0; set operator\.gamma"),
        (lambda: Saturation(0.0), r"got 0\.0; set operator\.strength"),
        (lambda: BlurNonlinear(gain=0.0), r"got 0\.0; set operator\.gain"),
        (lambda: BlurNonlinear(size=4), r"size=4; set operator\.size"),
    ],
)
def test_settings_without_a_curve_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
