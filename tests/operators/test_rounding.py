"""Measurements that are rounded: quantisation, and JPEG against Pillow."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from operator_cases import generators, random_images
from PIL import Image

from diffusion_priors.operators.jpeg import JPEG, quantisation_tables
from diffusion_priors.operators.measurement import Measurement
from diffusion_priors.operators.noise_models import NoNoise
from diffusion_priors.operators.rounding import Quantisation

FACE = Path(__file__).parents[2] / "examples" / "faces" / "face-1.png"


def face(height: int, width: int, channels: int) -> torch.Tensor:
    pixels = np.array(Image.open(FACE).convert("RGB"))[:height, :width]
    return torch.from_numpy(pixels).movedim(-1, 0)[None, :channels].double() / 127.5 - 1.0


@pytest.mark.parametrize("levels", [2, 3, 8, 256])
def test_values_are_rounded_to_the_nearest_level(levels):
    x = random_images(2, 3, 12, 10)
    y = Quantisation(levels)(x)
    grid = np.linspace(-1.0, 1.0, levels)
    nearest = grid[np.abs(x.numpy()[..., None] - grid).argmin(-1)]
    np.testing.assert_allclose(y.numpy(), nearest, atol=1e-12)
    torch.testing.assert_close(Quantisation(levels)(y), y)
    assert Quantisation(levels)(torch.tensor([[[[-1.4, 1.4]]]])).flatten().tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sides", [(64, 64), (51, 38)])
@pytest.mark.parametrize(("quality", "mean", "largest"), [(5, 0.02, 1.0), (10, 0.5, 11.0), (50, 1.0, 10.0), (90, 0.8, 7.0)])
def test_jpeg_in_floating_point_agrees_with_the_file(quality, mean, largest, sides, channels):
    """In grey levels of 255, where the compression itself changes pixels by 1 to 11 in the mean."""
    x = face(*sides, channels)
    operator = JPEG(quality).draw(x, generators([0]))
    difference = (operator(x) - operator.acquire(x)).abs() * 127.5
    assert difference.mean() <= mean and difference.max() <= largest
    assert difference.mean() < 0.7 * (operator(x) - x).abs().mean() * 127.5


def test_a_measurement_is_the_content_of_a_file():
    """Read back from Pillow's JPEG, grey channels one by one; noise comes on top."""
    middle = face(55, 50, 3)[..., 15:, 17:]
    x = torch.cat([middle, middle.flip(-1)])
    pixels = ((x[0].movedim(0, -1) + 1.0) * 127.5).round().byte().numpy()
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=20)
    expected = torch.from_numpy(np.array(Image.open(file))).movedim(-1, 0).double() / 127.5 - 1.0
    operator = JPEG(20).draw(x, generators((0, 1)))
    y = Measurement.of(operator, NoNoise(), x, generators((0, 1))).y
    torch.testing.assert_close(y[0], expected, rtol=0, atol=1e-12)
    assert (operator(x) - y).abs().max() > 1e-3  # `forward` is not the file
    two = JPEG(20).draw(x[:, :2], generators((0, 1)))
    torch.testing.assert_close(two.acquire(x[:, :2])[:, 1:], two.acquire(x[:, 1:2]), rtol=0, atol=0)


def test_a_second_compression_changes_little():
    x = face(48, 48, 1)
    operator = JPEG(10).draw(x, generators([0]))
    y = operator(x)
    assert (operator(y) - y).abs().mean() < 0.05 * (y - x).abs().mean()


def test_the_tables_are_those_of_the_quality():
    """The first entries of the standard's luma table, 16 11 10, times 5000/quality % below 50 and 200 − 2 quality % above, at most 255."""
    assert quantisation_tables(50)[0, 0, :3].tolist() == [16.0, 11.0, 10.0]
    assert quantisation_tables(10)[0, 0, :3].tolist() == [80.0, 55.0, 50.0]
    assert quantisation_tables(5)[0, 0, :3].tolist() == [160.0, 110.0, 100.0] and quantisation_tables(5).max() == 255.0
    assert (quantisation_tables(10)[0] != quantisation_tables(10)[1]).any()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Quantisation(1), r"got 1; set operator\.levels"),
        (lambda: JPEG(0), r"got 0; set operator\.quality"),
        (lambda: JPEG(100), r"got 100; set operator\.quality"),
    ],
)
def test_settings_without_rounding_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
