"""Phase retrieval: magnitudes of the padded image's transform, and what they cannot tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from operator_cases import generators, random_images

from diffusion_priors.operators.phase_retrieval import PhaseRetrieval


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
