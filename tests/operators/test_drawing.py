"""How measurements that are no image are drawn, and what their fields look at first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from operator_cases import ALL, generators, norms, random_images

from diffusion_priors.operators.composition import compose
from diffusion_priors.operators.drawing import Drawing, root_sum_of_squares
from diffusion_priors.operators.inpainting import InpaintRandom
from diffusion_priors.operators.kspace_masks import Equispaced
from diffusion_priors.operators.mri import MRI
from diffusion_priors.operators.phase_retrieval import CodedDiffraction
from diffusion_priors.operators.random_matrix import RandomMatrix
from diffusion_priors.operators.tomography import Tomography


def test_decibels_are_of_the_largest_magnitude():
    """1, 0.1, 0.01 and less of it are 0, −20, −40 and at most −60 dB: white, two thirds, one third and no light; each by itself."""
    magnitude = torch.tensor([1.0, 0.1, 0.01, 0.0]).view(1, 2, 2) * torch.tensor([3.0, 500.0]).view(2, 1, 1)
    drawing = Drawing.logarithmic("a", "b", "c", magnitude)
    torch.testing.assert_close(drawing.images(), torch.tensor([1.0, 1 / 3, -1 / 3, -1.0]).view(1, 1, 2, 2).repeat(2, 1, 1, 1))
    assert drawing.captions() == ["a; b by c; black -60 dB, white 0 dB"] * 2
    assert Drawing.logarithmic("a", "b", "c", torch.zeros(1, 2, 2)).images().isfinite().all()


def test_a_linear_scale_runs_from_the_least_to_the_largest_value():
    drawing = Drawing.linear("a", "b", "c", torch.tensor([[[2.0, 3.0], [4.0, 6.0]], [[0.0, 0.0], [0.0, 0.0]]]))
    assert drawing.images()[0].flatten().tolist() == [-1.0, -0.5, 0.0, 1.0] and drawing.images()[1].isfinite().all()
    assert drawing.captions() == ["a; b by c; black 2, white 6", "a; b by c; black 0, white 0"]


def test_numbers_of_any_shape_are_drawn_in_their_order():
    """A list in rows as near to a square as it goes, a prime number of them in one row; several channels by their mean."""
    y = torch.arange(24.0).view(1, 1, 1, 24)
    drawing = Drawing.of_numbers("y", y)
    assert torch.equal(drawing.values, y.view(1, 4, 6)) and torch.equal(Drawing.of_numbers("y", y.view(1, 24)).values, drawing.values)
    assert drawing.captions() == ["y, 24 numbers in reading order; 4 rows by 6 columns; black 0, white 23"]
    assert Drawing.of_numbers("y", y[..., :13]).values.shape == (1, 1, 13)
    channels = Drawing.of_numbers("y", y.view(1, 2, 3, 4))
    assert torch.equal(channels.values, y.view(1, 2, 3, 4).mean(1)) and channels.captions()[0].startswith("y, mean of 2; 3 rows by 4")
    assert torch.equal(Drawing.of_numbers("y", y.view(1, 4, 6)).values, drawing.values)
    assert Drawing.of_numbers("y", torch.complex(y, y)).captions()[0].endswith("black -60 dB, white 0 dB")


def test_a_random_measurement_behind_others_is_drawn_too():
    """A mask of projections has the shape of an image, and is none."""
    x = random_images(2, 1, 1, 40)
    operator = compose({"a": RandomMatrix(40), "b": InpaintRandom()}).draw(x, generators((0, 1)))
    assert operator.as_image(operator(x)) is None
    assert operator.drawing(operator(x)).captions()[0].startswith("y, 40 numbers in reading order; 5 rows by 8 columns; ")


def test_channels_and_coils_are_drawn_together():
    y = torch.tensor([3.0 + 0.0j, 4.0j]).view(1, 2, 1, 1)
    assert root_sum_of_squares(y).item() == pytest.approx(5.0)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_what_is_no_image_is_drawn_image_by_image(case, tmp_path):
    """Not what is one. A first look has the shape of x0; both are the same in any batch."""
    x = random_images(3, 3, *case.sides(seed=20, most=20))
    operator = case.drawn(x, tmp_path)
    y = operator(x)
    drawing, look = operator.drawing(y), operator.first_look(y)
    if operator.as_image(y) is not None:
        assert drawing is None and look is None
        return
    alone = case.drawn(x[1:2], tmp_path, ids=(1,))
    assert drawing.images().abs().max() <= 1.0 + 1e-9 and len(drawing.captions()) == 3
    torch.testing.assert_close(alone.drawing(y[1:2]).images(), drawing.images()[1:2], rtol=1e-9, atol=1e-9)
    assert alone.drawing(y[1:2]).captions() == drawing.captions()[1:2]
    if look is not None:
        assert look[1].shape == x.shape and look[0]
        torch.testing.assert_close(alone.first_look(y[1:2])[1], look[1][1:2], rtol=1e-9, atol=1e-9)


def test_the_fields_have_their_own_drawings():
    x = random_images(2, 1, 16, 20)
    own = generators((0, 1))
    mri, tomography, coded = (operator.draw(x, own) for operator in (MRI(Equispaced()), Tomography(6), CodedDiffraction(3)))
    kspace = mri.drawing(mri(x))
    assert (kspace.images()[:, :, :, mri.mask.flatten() == 0.0] == -1.0).all() and kspace.images().max() == 1.0
    name, zero_filled = mri.first_look(mri(x))
    assert name == "zero-filled" and torch.equal(zero_filled, mri.adjoint(mri(x)))
    sinogram = tomography.drawing(tomography(x))
    light = tomography(x + 1.0)[:, 0]
    torch.testing.assert_close(sinogram.values, light, rtol=1e-11, atol=1e-12)
    assert sinogram.captions()[0].startswith("sinogram; 0° to 150° by detector; black 0, white ")
    patterns = coded.drawing(coded(x))
    assert patterns.values.shape == (2, 16, 60)
    expected = Drawing.logarithmic("", "", "", coded(x)[:, 1]).values
    difference = patterns.values[:, :, 20:40] - expected
    np.testing.assert_allclose(difference.flatten(1).std(1).numpy(), 0.0, atol=1e-6)
    assert (norms(tomography.first_look(tomography(x))[1] - x) < norms(x + 1.0)).all()
