"""Blurs that differ with the direction or from place to place, against the formula term by term."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from operator_cases import BOUNDARIES, generators, random_images
from scipy import ndimage

from diffusion_priors.operators.blur import DeblurAnisotropic, DeblurGaussian
from diffusion_priors.operators.varying_blur import DeblurVarying

SCIPY = {"circular": "wrap", "reflect": "mirror", "zero": "constant"}

every_boundary = pytest.mark.parametrize("boundary", BOUNDARIES)


def drawn(operator, x: torch.Tensor):
    return operator.draw(x, generators(range(len(x))))


@every_boundary
@pytest.mark.parametrize(("stds", "angle"), [((2.0, 0.7), 45.0), ((1.0, 3.0), 110.0), ((2.5, 0.5), -20.0)])
def test_an_anisotropic_kernel_is_the_density_of_its_covariance(stds, angle, boundary):
    """k(i) ∝ exp(−½ iᵀΣ⁻¹i) with Σ = R diag(std²) Rᵀ by NumPy, correlated by SciPy."""
    x = random_images(2, 3, 13, 18)
    turn = np.deg2rad(angle)
    direction, normal = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    precision = np.linalg.inv(stds[0] ** 2 * np.outer(direction, direction) + stds[1] ** 2 * np.outer(normal, normal))
    kernel = np.empty((9, 9))
    for row in range(9):
        for column in range(9):
            point = np.array([column - 4, 4 - row])  # to the right, upwards
            kernel[row, column] = np.exp(-0.5 * point @ precision @ point)
    kernel /= kernel.sum()
    expected = [[ndimage.convolve(channel, kernel, mode=SCIPY[boundary]) for channel in image] for image in x.numpy()]
    y = drawn(DeblurAnisotropic(9, stds, angle, boundary), x)(x)
    torch.testing.assert_close(y, torch.tensor(np.array(expected)), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("angle", "lit", "dark"), [(0.0, (5, 7), (7, 5)), (90.0, (7, 5), (5, 7)), (45.0, (3, 7), (3, 3))])
def test_a_point_is_smeared_along_the_angle(angle, lit, dark):
    """0° is along a row, 90° along a column, 45° upwards to the right."""
    x = torch.zeros(1, 1, 11, 11, dtype=torch.float64)
    x[..., 5, 5] = 1.0
    y = drawn(DeblurAnisotropic(7, (3.0, 0.3), angle), x)(x)[0, 0]
    assert y[lit] > 100.0 * y[dark]


@every_boundary
def test_equal_widths_are_the_gaussian_blur(boundary):
    x = random_images(2, 3, 13, 18)
    round_blur = drawn(DeblurGaussian(9, 1.5, boundary), x)
    torch.testing.assert_close(drawn(DeblurAnisotropic(9, (1.5, 1.5), 33.0, boundary), x)(x), round_blur(x), rtol=1e-12, atol=1e-13)


def gaussian(size: int, std: float) -> np.ndarray:
    row, column = np.mgrid[:size, :size] - size // 2
    taps = np.exp(-(row**2 + column**2) / (2.0 * std**2))
    return taps / taps.sum()


@every_boundary
def test_every_pixel_has_a_kernel_between_those_of_the_centre_and_the_corners(boundary):
    """Pixel by pixel: y_i = Σ_j [(1 − w_i) k₁ + w_i k₂]_j x_{i−j}, w_i = the distance from the middle over that of a corner."""
    x = random_images(1, 2, 12, 17)
    y = drawn(DeblurVarying(7, (0.6, 2.0), boundary), x)(x)
    middle = np.array([5.5, 8.0])
    padded = np.pad(x[0].numpy(), ((0, 0), (3, 3), (3, 3)), mode={"circular": "wrap", "reflect": "reflect", "zero": "constant"}[boundary])
    for row in range(12):
        for column in range(17):
            share = np.linalg.norm(np.array([row, column]) - middle) / np.linalg.norm(middle)
            kernel = (1.0 - share) * gaussian(7, 0.6) + share * gaussian(7, 2.0)
            expected = (padded[:, row : row + 7, column : column + 7] * kernel).sum((1, 2))
            np.testing.assert_allclose(y[0, :, row, column].numpy(), expected, rtol=1e-12, atol=1e-13)


def test_a_varying_blur_keeps_constants_and_differs_from_place_to_place():
    ones = torch.ones(1, 1, 15, 21, dtype=torch.float64)
    operator = drawn(DeblurVarying(), ones)
    torch.testing.assert_close(operator(ones), ones, rtol=1e-13, atol=0)
    points = torch.zeros(2, 1, 15, 21, dtype=torch.float64)
    points[0, 0, 7, 10], points[1, 0, 2, 3] = 1.0, 1.0
    sharp, soft = operator(points).amax((1, 2, 3))
    assert sharp > 3.0 * soft


def test_an_image_of_one_pixel_is_that_of_the_centre():
    x = random_images(1, 1, 1, 1)
    assert torch.equal(drawn(DeblurVarying(1, (0.5, 3.0)), x)(x), x)


@pytest.mark.parametrize(
    ("make", "seen", "key"),
    [
        (lambda: DeblurAnisotropic(8), "odd, positive number of taps, got size=8", "size"),
        (lambda: DeblurAnisotropic(stds=(1.0, 0.0)), "both standard deviations must be positive, got [1.0, 0.0]", "stds"),
        (lambda: DeblurVarying(stds=(-1.0, 2.0)), "both standard deviations must be positive, got [-1.0, 2.0]", "stds"),
        (lambda: DeblurVarying(6), "odd, positive number of taps, got size=6", "size"),
    ],
)
def test_invalid_settings_are_refused(make, seen, key):
    with pytest.raises(ValueError, match=re.escape(seen)) as refusal:
        make()
    assert f"set operator.{key}" in str(refusal.value)
