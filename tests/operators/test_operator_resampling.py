"""Super-resolution against independent references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from operator_cases import BOUNDARIES, generators, random_images

from diffusion_priors.operators.resampling import SuperResolution, SuperResolutionBicubic, cubic

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
