"""Colorization: a weighted mean of the channels."""

from __future__ import annotations

import re

import pytest
import torch
from operator_cases import generators, random_images

from diffusion_priors.operators.colour import Colorization

LUMA = (0.299, 0.587, 0.114)


def drawn(x: torch.Tensor, weights=None) -> Colorization:
    return Colorization(weights).draw(x, generators(range(len(x))))


@pytest.mark.parametrize("weights", [LUMA, (299.0, 587.0, 114.0)])
def test_luma_is_that_of_pillow(weights):
    """Within the rounding of its 8 bits."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    x = torch.from_numpy(pixels.transpose(2, 0, 1)[None] / 127.5 - 1.0)
    y = (drawn(x, weights)(x) + 1.0) * 127.5
    grey = torch.from_numpy(np.asarray(Image.fromarray(pixels).convert("L")).astype(float))
    assert y.shape == (1, 1, 9, 14) and (y[0, 0] - grey).abs().max() <= 0.51


def test_channels_weigh_the_same_by_default():
    x = random_images(2, 4, 5, 6)
    torch.testing.assert_close(drawn(x)(x), x.mean(1, keepdim=True), rtol=1e-14, atol=1e-14)


def test_the_pseudoinverse_has_the_colour_of_the_weights_and_the_first_image_is_grey():
    """A⁺y = w y/‖w‖²; both explain y."""
    x = random_images(2, 3, 5, 6)
    operator, w = drawn(x, LUMA), torch.tensor(LUMA, dtype=torch.float64).view(1, 3, 1, 1)
    y = operator(x)
    torch.testing.assert_close(operator.pinv(y), w * y / w.square().sum(), rtol=1e-12, atol=1e-13)
    grey = operator.initial_image(y)
    assert torch.equal(grey, y.expand_as(x))
    torch.testing.assert_close(operator(grey), y, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("weights", [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0), LUMA])
def test_one_singular_value_for_each_pixel(weights):
    """‖w‖₂; also where the weights choose one channel."""
    x = random_images(1, 3, 4, 5)
    operator = drawn(x, weights)
    spectrum = operator.spectrum()
    expected = torch.tensor(weights, dtype=torch.float64).norm()
    torch.testing.assert_close(spectrum.s.flatten(), torch.stack([expected, 0 * expected, 0 * expected]), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(spectrum.measured(operator(x)), spectrum.s * spectrum.analyse(x), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(spectrum.synthesise(spectrum.analyse(x)), x, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("weights", [(0.0, 0.0, 0.0), (1.0, -0.1, 0.1), (), (float("nan"), 1.0, 1.0), (float("inf"), 1.0, 1.0)])
def test_invalid_weights_are_refused(weights):
    with pytest.raises(ValueError, match=r"not negative and not all 0, got \[.*set operator\.weights"):
        Colorization(weights)


def test_a_weight_for_every_channel_is_needed():
    with pytest.raises(ValueError, match=re.escape("3 weights are given for images of 1 channels; set operator.weights")):
        drawn(random_images(1, 1, 4, 4), LUMA)
