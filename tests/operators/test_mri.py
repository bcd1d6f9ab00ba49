"""MRI: which columns of k-space are measured, and in which convention."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from operator_cases import generators, norms, random_images

from diffusion_priors.operators.mri import MRI


def mask(operator: MRI, width: int, images: int = 1, seed: int = 0) -> torch.Tensor:
    """(images or 1, width), after a draw."""
    operator.draw(random_images(images, 1, 6, width), generators(range(images), seed))
    return operator.mask[:, 0, 0]


@pytest.mark.parametrize("sides", [(8, 12), (9, 13), (8, 13)])
def test_the_measurement_is_the_centred_orthonormal_transform(sides):
    """Against NumPy's, on the measured columns; all of k-space gives the image back."""
    x = random_images(2, 3, *sides)
    axes = (-2, -1)
    expected = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(x.numpy(), axes), norm="ortho"), axes)
    some, everything = (MRI(acceleration, 0.1).draw(x, generators(range(2))) for acceleration in (4.0, 1.0))
    torch.testing.assert_close(some(x), torch.tensor(expected) * some.mask, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(everything.adjoint(everything(x)), x, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(everything.pinv(everything(x)), x, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("random_columns", [False, True])
@pytest.mark.parametrize(("acceleration", "center"), [(4.0, 0.08), (8.0, 0.04), (2.0, 0.3)])
def test_columns_are_measured_at_the_rate_of_the_acceleration(acceleration, center, random_columns):
    """The centre always, the others so that all are width/acceleration: exactly where equispaced, within 5 standard errors where random."""
    width, images = 320, 40
    drawn = mask(MRI(acceleration, center, random_columns), width, images)
    low = round(center * width)
    start = (width - low + 1) // 2
    assert (drawn[:, start : start + low] == 1.0).all() and drawn[:, width // 2].all()
    outside = torch.cat([drawn[:, :start], drawn[:, start + low :]], 1)
    share = (width / acceleration - low) / (width - low)
    if random_columns:
        assert abs(outside.mean() - share) <= 5.0 * (share * (1.0 - share) / outside.numel()) ** 0.5
        assert len({tuple(row.tolist()) for row in drawn}) == images
    else:
        assert len(drawn) == 1 and abs(drawn.sum().item() - width / acceleration) <= 2.0
        gaps = drawn[0, :start].nonzero().flatten().diff()
        assert drawn[0, 0] == 1.0 and set(gaps.tolist()) <= {int(1.0 / share), int(1.0 / share) + 1}


def test_random_columns_belong_to_the_image_and_the_seed():
    first, again, other = (mask(MRI(random_columns=True), 96, 3, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(mask(MRI(random_columns=True), 96, 1), first[:1])


def test_narrow_images_keep_their_centre():
    """At least one column, the zero frequency, however narrow the image."""
    for width in (1, 2, 5, 8):
        assert mask(MRI(8.0, 0.04), width)[0, width // 2] == 1.0


def test_the_adjoint_and_the_pseudoinverse_of_a_real_image_are_real():
    x = random_images(2, 1, 8, 24).float()
    operator = MRI().draw(x, generators(range(2)))
    y = operator(x)
    assert y.dtype == torch.complex64 and operator.initial_image(y).dtype == torch.float32
    assert (norms(operator(operator.pinv(y)) - y) <= 1e-5 * norms(y)).all()


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        ({"acceleration": 0.5}, r"got 0\.5; set operator\.acceleration"),
        ({"acceleration": float("nan")}, r"nan; set operator\.acceleration"),
        ({"center_fraction": 0.0}, r"got 0\.0; set operator\.center_fraction"),
        ({"acceleration": 16.0}, r"1/acceleration = 0\.0625 of the columns, got 0\.08; set operator\.center_fraction"),
    ],
)
def test_settings_without_a_mask_are_refused(settings, seen):
    with pytest.raises(ValueError, match=seen):
        MRI(**settings)
