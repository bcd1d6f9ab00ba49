"""Subsampled transforms against SciPy's matrix and NumPy's FFT."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from operator_cases import generators, norms, random_images
from scipy.linalg import hadamard

from diffusion_priors.operators.hadamard import WalshHadamard, walsh_hadamard
from diffusion_priors.operators.kspace_masks import RandomFrequencies
from diffusion_priors.operators.mri import MRI


def drawn(operator, x: torch.Tensor, seed: int = 0):
    return operator.draw(x, generators(range(len(x)), seed))


@pytest.mark.parametrize("sides", [(8, 16), (32, 4), (1, 8), (2, 1), (1, 1)])
def test_the_fast_transform_is_that_of_the_matrix(sides):
    x = random_images(2, 3, *sides)
    rows, columns = (torch.tensor(hadamard(side) / side**0.5) for side in sides)
    torch.testing.assert_close(walsh_hadamard(x), rows @ x @ columns.mT, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(walsh_hadamard(walsh_hadamard(x)), x, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("keep", [0.1, 0.25, 1.0])
def test_orthonormal_rows_of_random_signs_are_measured(keep):
    """y is M H D x0; ‖Aᴴy‖ = ‖y‖ and A⁺ = Aᴴ; with all rows kept x0 comes back."""
    x = random_images(3, 2, 16, 8)
    operator = drawn(WalshHadamard(keep), x)
    assert (operator.mask.flatten(1).sum(1) == round(keep * 128)).all() and (operator.signs.abs() == 1.0).all()
    rows, columns = (torch.tensor(hadamard(side) / side**0.5) for side in (16, 8))
    y = operator(x)
    torch.testing.assert_close(y, operator.mask * (rows @ (operator.signs * x) @ columns), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(norms(operator.adjoint(y)), norms(y), rtol=1e-12, atol=0)
    torch.testing.assert_close(operator.pinv(y), operator.adjoint(y), rtol=1e-12, atol=1e-13)
    if keep == 1.0:
        torch.testing.assert_close(operator.pinv(y), x, rtol=1e-12, atol=1e-13)


def test_every_row_and_sign_is_equally_likely():
    """Rows are kept with probability 1/4 and signs positive with 1/2, within five standard errors; images differ."""
    n = 2000
    operator = drawn(WalshHadamard(0.25), random_images(n, 1, 4, 8))
    kept, positive = operator.mask.mean(0), (operator.signs > 0.0).double().mean(0)
    assert ((kept - 0.25).abs() <= 5.0 * (0.25 * 0.75 / n) ** 0.5).all()
    assert ((positive - 0.5).abs() <= 5.0 * (0.25 / n) ** 0.5).all()


@pytest.mark.parametrize(("sides", "side"), [((8, 12), 12), ((9, 8), 9)])
def test_a_side_that_is_no_power_of_two_is_refused(sides, side):
    with pytest.raises(ValueError, match=rf"a side of {side} pixels is no power of two.*set prior\.size"):
        drawn(WalshHadamard(), random_images(1, 1, *sides))


@pytest.mark.parametrize("keep", [0.0, -0.5, 1.1, float("nan")])
def test_a_share_of_rows_outside_its_range_is_refused(keep):
    with pytest.raises(ValueError, match=rf"got {keep}; set operator\.keep"):
        WalshHadamard(keep)


def test_a_share_that_keeps_no_row_is_refused():
    with pytest.raises(ValueError, match=r"keep=0\.01 keeps no row for a 4 x 4 image; raise operator\.keep"):
        drawn(WalshHadamard(0.01), random_images(1, 1, 4, 4))


@pytest.mark.parametrize("sides", [(16, 20), (15, 22)])
def test_frequencies_are_those_of_numpy_and_determine_the_opposite_ones(sides):
    """s² is the mean of the mask over ω and −ω, frequency by frequency."""
    x = random_images(2, 3, *sides)
    operator = drawn(MRI(RandomFrequencies(acceleration=3.0)), x)
    shifted = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(x.numpy(), (-2, -1)), norm="ortho"), (-2, -1))
    torch.testing.assert_close(operator(x), operator.mask * torch.tensor(shifted), rtol=1e-12, atol=1e-12)
    mask, s = torch.fft.ifftshift(operator.mask[0, 0]), operator.spectrum().s[0, 0]
    for i in range(sides[0]):
        for j in range(sides[1]):
            expected = (mask[i, j] + mask[-i % sides[0], -j % sides[1]]) / 2.0
            assert s[i, j].square().item() == pytest.approx(expected.item(), abs=1e-15)


@pytest.mark.parametrize(("fraction", "sides", "rows", "columns"), [(0.25, (16, 20), (6, 10), (8, 13)), (0.01, (15, 20), (7, 8), (10, 11))])
def test_the_middle_is_always_measured_and_the_rest_at_random(fraction, sides, rows, columns):
    """All together 1/3 of the frequencies are, in the mean over images, within five standard errors."""
    n = 800
    mask = RandomFrequencies(3.0, fraction)(random_images(n, 1, *sides), generators(range(n)))
    middle = torch.zeros(sides, dtype=torch.bool)
    middle[slice(*rows), slice(*columns)] = True
    share, entries = mask.mean((0, 1)), sides[0] * sides[1]
    rest = (entries / 3.0 - middle.sum()) / (entries - middle.sum())
    assert middle[sides[0] // 2, sides[1] // 2] and (share[middle] == 1.0).all()
    assert ((share[~middle] - rest).abs() <= 5.0 * (rest * (1.0 - rest) / n) ** 0.5).all()
    assert abs(mask.mean() - 1.0 / 3.0) <= 5.0 * (0.25 / n / entries) ** 0.5
