"""Super-resolution against independent references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from operator_cases import BOUNDARIES, generators, random_images
from PIL import Image

from diffusion_priors.operators.resampling import (
    SuperResolution,
    SuperResolutionBicubic,
    SuperResolutionGaussian,
    SuperResolutionLanczos,
    cubic,
)

NUMPY = {"circular": "wrap", "reflect": "reflect", "symmetric": "symmetric", "zero": "constant"}

every_factor = pytest.mark.parametrize("factor", [2, 3, 4, 5])
every_boundary = pytest.mark.parametrize("boundary", [*BOUNDARIES, "symmetric"])


def drawn(operator, x):
    return operator.draw(x, generators(range(len(x))))


@every_factor
def test_super_resolution_averages_blocks(factor):
    x = random_images(2, 3, 4 * factor, 7 * factor)
    torch.testing.assert_close(drawn(SuperResolution(factor), x)(x), F.avg_pool2d(x, factor), rtol=1e-12, atol=1e-13)


@every_factor
def test_the_pseudoinverse_of_block_averages_repeats_them(factor):
    x = random_images(2, 3, 4 * factor, 7 * factor)
    operator, y = drawn(SuperResolution(factor), x), random_images(2, 3, 4, 7, seed=1)
    repeated = y.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
    torch.testing.assert_close(operator.pinv(y), repeated, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(operator.initial_image(y), repeated, rtol=1e-12, atol=1e-13)


@every_factor
@every_boundary
def test_bicubic_reduction_is_that_of_torch_in_the_interior(factor, boundary):
    """Row j reads the pixels (j + ½) factor − ½ ± 2 factor: all inside for 2 ≤ j < small − 2."""
    x = random_images(2, 3, 7 * factor, 9 * factor)
    expected = F.interpolate(x, size=(7, 9), mode="bicubic", antialias=True, align_corners=False)
    y = drawn(SuperResolutionBicubic(factor, boundary), x)(x)
    torch.testing.assert_close(y[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], rtol=1e-12, atol=1e-13)


@every_factor
@every_boundary
@pytest.mark.parametrize("small", [(5, 7), (2, 1)], ids=["large", "small"])
def test_the_boundary_of_bicubic_reduction_continues_the_image(factor, boundary, small):
    """It equals the reduction of the continued image, also where the kernel is wider than the image."""
    sides = (small[0] * factor, small[1] * factor)
    x = random_images(2, 1, *sides)
    pad = 3 * factor
    continued = torch.tensor(np.pad(x.numpy(), ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode=NUMPY[boundary]))
    expected = drawn(SuperResolutionBicubic(factor, "zero"), continued)(continued)[..., 3:-3, 3:-3]
    torch.testing.assert_close(drawn(SuperResolutionBicubic(factor, boundary), x)(x), expected, rtol=1e-12, atol=1e-13)


@every_factor
def test_bicubic_reduction_keeps_constants_and_ramps(factor):
    """1 → 1 everywhere, and x_i = i → its value at the block's centre, (j + ½) factor − ½, in the interior."""
    sides = (7 * factor, 8 * factor)
    ones = torch.ones(1, 1, *sides, dtype=torch.float64)
    for boundary in ("circular", "reflect", "symmetric"):
        y = drawn(SuperResolutionBicubic(factor, boundary), ones)(ones)
        torch.testing.assert_close(y, torch.ones_like(y), rtol=1e-13, atol=0)
    ramp = torch.arange(sides[1], dtype=torch.float64).expand(1, 1, *sides)
    centres = (torch.arange(8, dtype=torch.float64) + 0.5) * factor - 0.5
    y = drawn(SuperResolutionBicubic(factor), ramp)(ramp)
    torch.testing.assert_close(y[..., 2:-2], centres[2:-2].expand_as(y[..., 2:-2]), rtol=1e-12, atol=0)


@every_factor
def test_lanczos_reduction_is_that_of_pillow_in_the_interior(factor):
    """Its weights have 32 bits; row j reads pixels within 3 factor of its centre."""
    x = random_images(1, 1, 9 * factor, 11 * factor)
    pixels = Image.fromarray(x[0, 0].float().numpy())
    expected = torch.tensor(np.array(pixels.resize((11, 9), Image.Resampling.LANCZOS)), dtype=torch.float64)
    y = drawn(SuperResolutionLanczos(factor), x)(x)[0, 0]
    torch.testing.assert_close(y[3:-3, 3:-3], expected[3:-3, 3:-3], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lobes", [1, 2, 4])
@pytest.mark.parametrize("std", [0.3, 0.7])
def test_reductions_are_weighted_means_with_their_kernels(lobes, std):
    """Row by row with the formulas of the kernels, in the middle of a long row of pixels."""
    x, factor = random_images(1, 1, 60, 60), 3
    distance = (np.arange(60) - 28.0) / factor  # pixel 9 of y is the mean of the pixels 27 to 29 and their surroundings
    lanczos = np.where(np.abs(distance) < lobes, np.sinc(distance) * np.sinc(distance / lobes), 0.0)
    gauss = np.where(np.abs(distance) <= 4 * std, np.exp(-(distance**2) / (2 * std**2)), 0.0)
    for operator, weights in ((SuperResolutionLanczos(factor, lobes), lanczos), (SuperResolutionGaussian(factor, std), gauss)):
        weights = weights / weights.sum()
        expected = weights @ x[0, 0].numpy() @ weights
        assert drawn(operator, x)(x)[0, 0, 9, 9].item() == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("operator", [SuperResolutionBicubic, SuperResolutionLanczos, SuperResolutionGaussian])
@pytest.mark.parametrize("boundary", ["circular", "reflect", "symmetric"])
def test_reductions_keep_constants(operator, boundary):
    ones = torch.ones(1, 1, 12, 20, dtype=torch.float64)
    y = drawn(operator(boundary=boundary), ones)(ones)
    torch.testing.assert_close(y, torch.ones_like(y), rtol=1e-13, atol=0)


def test_kernels_that_see_nothing_are_refused():
    with pytest.raises(ValueError, match=r"lobes=0; set operator\.lobes"):
        SuperResolutionLanczos(lobes=0)
    for std in (0.0, -1.0, 0.06, float("nan")):
        with pytest.raises(ValueError, match=rf"std={std} pixels of y is too narrow .* raise operator\.std"):
            SuperResolutionGaussian(std=std)


def test_the_cubic_kernel_interpolates_and_reproduces_parabolas():
    """h(0) = 1, h(k) = 0, and Σ_k k^n h(x − k) = x^n for n = 0, 1, 2, which only a = −1/2 gives (Keys 1981)."""
    np.testing.assert_array_equal(cubic(np.arange(-3.0, 4.0)), [0, 0, 0, 1, 0, 0, 0])
    x, knots = np.linspace(-1.0, 1.0, 41)[:, None], np.arange(-4.0, 5.0)
    for power in (0, 1, 2):
        np.testing.assert_allclose((knots**power * cubic(x - knots)).sum(1), x[:, 0] ** power, rtol=0, atol=1e-13)


@pytest.mark.parametrize("operator", [SuperResolution, SuperResolutionBicubic])
@pytest.mark.parametrize("factor", [1, 0, -4])
def test_a_factor_below_two_is_refused(operator, factor):
    with pytest.raises(ValueError, match=rf"at least 2, got {factor}; set operator\.factor"):
        operator(factor)


@pytest.mark.parametrize("operator", [SuperResolution, SuperResolutionBicubic])
@pytest.mark.parametrize(("sides", "side"), [((16, 18), 18), ((15, 16), 15), ((2, 16), 2)])
def test_a_factor_that_does_not_divide_the_sides_is_refused(operator, sides, side):
    with pytest.raises(ValueError, match=rf"side of {side} pixels is no multiple of the factor 4; set operator\.factor"):
        drawn(operator(4), random_images(1, 1, *sides))
