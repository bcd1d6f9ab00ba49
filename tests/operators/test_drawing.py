"""How measurements that are no image are drawn, and what their fields look at first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from operator_cases import ALL, generators, norms, random_images

from diffusion_priors.operators.drawing import Drawing, root_sum_of_squares
from diffusion_priors.operators.kspace_masks import Equispaced
from diffusion_priors.operators.mri import MRI
from diffusion_priors.operators.phase_retrieval import CodedDiffraction
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
    if drawing is not None:
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
