"""Phase retrieval: magnitudes of the padded image's transform, and what they cannot tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from operator_cases import generators, random_images

from diffusion_priors.operators.phase_retrieval import CodedDiffraction, PhaseRetrieval


def drawn(x: torch.Tensor, oversampling: float = 2.0) -> PhaseRetrieval:
    return PhaseRetrieval(oversampling).draw(x, generators(range(len(x))))


@pytest.mark.parametrize(("oversampling", "pad"), [(2.0, (4, 5)), (4.0, (8, 10)), (1.0, (2, 2))])
def test_the_measurement_is_the_magnitude_of_the_padded_transform(oversampling, pad):
    """Against NumPy's: oversampling 2 pads a quarter of a side at either end, the zero frequency stands in the middle."""
    x = random_images(2, 3, 16, 20)
    light = np.pad((x.numpy() + 1.0) / 2.0, ((0, 0), (0, 0), (pad[0], pad[0]), (pad[1], pad[1])))
    expected = np.abs(np.fft.fftshift(np.fft.fft2(light, norm="ortho"), (-2, -1)))
    y = drawn(x, oversampling)(x)
    torch.testing.assert_close(y, torch.tensor(expected), rtol=1e-12, atol=1e-13)
    middle = y[..., y.shape[-2] // 2, y.shape[-1] // 2]
    assert (middle == y.amax((-2, -1))).all()


def test_magnitudes_do_not_tell_an_image_from_its_rotation_but_from_its_negative():
    """|F P x| is the same for x rotated by 180°; −x in [-1, 1] units is other light."""
    x = random_images(2, 3, 16, 20)
    operator = drawn(x)
    torch.testing.assert_close(operator(x.flip((-2, -1))), operator(x), rtol=1e-11, atol=1e-12)
    assert not torch.allclose(operator(-x), operator(x), atol=0.1)


def test_in_the_range_of_dps_the_negative_fits_as_well():
    """pixel_range [-1, 1]: the magnitudes of x0 itself, against NumPy's, and those of −x0 are the same."""
    x = random_images(2, 3, 16, 20)
    operator = PhaseRetrieval(pixel_range=(-1.0, 1.0)).draw(x, generators(range(2)))
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (4, 4), (5, 5)))
    expected = np.abs(np.fft.fftshift(np.fft.fft2(padded, norm="ortho"), (-2, -1)))
    torch.testing.assert_close(operator(x), torch.tensor(expected), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(operator(-x), operator(x), rtol=1e-12, atol=1e-13)
    assert operator.unit == "Fourier magnitudes of [-1, 1] images" and PhaseRetrieval().unit == "Fourier magnitudes of [0, 1] images"


def test_magnitudes_do_not_tell_where_an_object_lies_among_zeros():
    """A dark margin in [0, 1] is part of the zeros around: an object that is moved into it has the same y."""
    x = -torch.ones(1, 1, 16, 16, dtype=torch.float64)
    x[..., 2:10, 3:11] = random_images(1, 1, 8, 8)
    torch.testing.assert_close(drawn(x)(x.roll((5, 4), (-2, -1))), drawn(x)(x), rtol=1e-11, atol=1e-12)


def test_coded_patterns_are_those_of_the_modulated_object():
    """Against NumPy's, mask by mask and channel by channel; together they have the energy of the light, as an isometry has."""
    x = random_images(2, 3, 9, 12)
    operator = CodedDiffraction(5).draw(x, generators(range(2)))
    y, light, phase = operator(x), (x.numpy() + 1.0) / 2.0, operator.phase.numpy()
    assert y.shape == (2, 15, 9, 12) and phase.shape == (2, 5, 9, 12)
    fields = [np.exp(1j * phase[:, mask, None]) * light for mask in range(5)]
    expected = [np.abs(np.fft.fftshift(np.fft.fft2(field, norm="ortho"), (-2, -1))) / 5**0.5 for field in fields]
    np.testing.assert_allclose(y.numpy(), np.concatenate(expected, 1), atol=1e-13)
    torch.testing.assert_close(y.square().sum((1, 2, 3)), torch.tensor((light**2).sum((1, 2, 3))), rtol=1e-12, atol=0)
    assert CodedDiffraction(1).draw(x, generators(range(2))).as_image(y[:, :3]) is None


def test_phases_of_the_masks_are_uniform_and_belong_to_the_image():
    """Mean of e^{iφ} and of e^{2iφ} within five standard errors of 0; the masks of an image differ."""
    phase = CodedDiffraction(4).draw(random_images(2, 1, 40, 50), generators((1, 2))).phase
    for order in (1, 2):
        assert torch.polar(torch.ones_like(phase), order * phase).mean().abs() <= 5.0 / phase.numel() ** 0.5
    assert phase.max() < 2 * torch.pi and (phase[0] - phase[1]).abs().min(-1).values.max() > 0.0
    rows = phase.flatten(0, 1).flatten(1)
    assert (torch.corrcoef(rows)[~torch.eye(8, dtype=torch.bool)].abs() <= 5.0 / rows.shape[1] ** 0.5).all()


def test_coded_patterns_tell_an_image_from_its_rotation():
    x = random_images(1, 1, 16, 20)
    operator = CodedDiffraction().draw(x, generators([0]))
    assert not torch.allclose(operator(x.flip((-2, -1))), operator(x), atol=0.1)


@pytest.mark.parametrize("pixel_range", [(1.0, 0.0), (0.0, 0.0), (0.0, float("inf"))])
@pytest.mark.parametrize("kind", [PhaseRetrieval, CodedDiffraction])
def test_a_range_of_pixels_that_does_not_rise_is_refused(kind, pixel_range):
    with pytest.raises(ValueError, match=r"must rise from low to high, got .*; set operator\.pixel_range"):
        kind(pixel_range=pixel_range)


def test_diffraction_without_masks_is_refused():
    with pytest.raises(ValueError, match=r"got 0; set operator\.masks"):
        CodedDiffraction(0)


def test_the_energy_is_that_of_the_light():
    """F is orthonormal: ‖y‖ = ‖(x0 + 1)/2‖."""
    x = random_images(2, 3, 16, 20)
    energy = drawn(x)(x).square().sum((1, 2, 3))
    torch.testing.assert_close(energy, ((x + 1.0) / 2.0).square().sum((1, 2, 3)), rtol=1e-12, atol=0)


@pytest.mark.parametrize("oversampling", [0.0, -1.0, float("nan")])
def test_an_oversampling_that_is_not_positive_is_refused(oversampling):
    with pytest.raises(ValueError, match=rf"got {oversampling}; set operator\.oversampling"):
        PhaseRetrieval(oversampling)


def test_an_oversampling_that_pads_nothing_is_refused():
    with pytest.raises(ValueError, match=r"oversampling=1\.0 pads nothing to a 4 x 16 image; raise operator\.oversampling"):
        drawn(random_images(1, 1, 4, 16), 1.0)
