"""Operators next to DeepInverse's on equal settings, and its physics as operators. Skipped where it is not installed."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from operator_cases import generators, norms, random_images

from diffusion_priors.operators.blur import DeblurKernel
from diffusion_priors.operators.coil_maps import SimulatedMaps
from diffusion_priors.operators.colour import Colorization
from diffusion_priors.operators.deepinv import deepinv
from diffusion_priors.operators.inpainting import InpaintRandom
from diffusion_priors.operators.kspace_masks import RandomFrequencies
from diffusion_priors.operators.mri import MRI, MultiCoilMRI
from diffusion_priors.operators.phase_retrieval import CodedDiffraction, PhaseRetrieval
from diffusion_priors.operators.resampling import SuperResolution, SuperResolutionBicubic
from diffusion_priors.operators.tomography import Tomography

pytestmark = [
    pytest.mark.slow,  # importing DeepInverse takes 8 seconds
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
SHAPE = (3, 24, 32)


@pytest.fixture(scope="module")
def physics():
    return pytest.importorskip("deepinv").physics


def drawn(operator, x):
    return operator.draw(x, generators(range(len(x))))


def test_inpainting_is_equal(physics):
    """A, Aᴴ, A⁺ and the proximal step, each image with its own mask."""
    x, z = random_images(2, *SHAPE), random_images(2, *SHAPE, seed=1)
    ours = drawn(InpaintRandom(0.4), x)
    theirs = physics.Inpainting(img_size=SHAPE, mask=ours.mask.expand(-1, 3, -1, -1))
    y = ours(x)
    assert torch.equal(theirs.A(x), y) and torch.equal(theirs.A_adjoint(z), ours.adjoint(z))
    torch.testing.assert_close(theirs.A_dagger(y), ours.pinv(y), rtol=1e-12, atol=1e-12)
    weight = 0.3  # theirs: argmin γ/2 ‖A x − y‖² + ½ ‖x − z‖²
    expected = z + ours.tikhonov(y - ours(z), weight)
    torch.testing.assert_close(theirs.prox_l2(z, y, gamma=1.0 / weight), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("boundary", "padding"), [("circular", "circular"), ("reflect", "reflect"), ("zero", "constant")])
@pytest.mark.parametrize("shape", [(5, 3), (3, 7)])
def test_blur_is_equal(physics, boundary, padding, shape, tmp_path):
    """A true convolution with an asymmetric kernel of odd sides, and its adjoint."""
    kernel = np.random.default_rng(0).uniform(size=shape)
    np.save(tmp_path / "kernel.npy", kernel / kernel.sum())
    x, z = random_images(2, *SHAPE), random_images(2, *SHAPE, seed=1)
    ours = drawn(DeblurKernel(str(tmp_path / "kernel.npy"), boundary), x)
    theirs = physics.Blur(filter=torch.tensor(kernel / kernel.sum())[None, None], padding=padding)
    torch.testing.assert_close(theirs.A(x), ours(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(theirs.A_adjoint(z), ours.adjoint(z), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("factor", [2, 4])
def test_bicubic_reduction_is_equal_where_its_reflection_repeats_the_edge(physics, factor):
    """Their padding="reflect" is our boundary="symmetric", as in MATLAB."""
    x = random_images(2, *SHAPE)
    theirs = physics.DownsamplingMatlab(factor=factor, padding="reflect")
    torch.testing.assert_close(theirs.A(x), drawn(SuperResolutionBicubic(factor, "symmetric"), x)(x), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(theirs.A(x), drawn(SuperResolutionBicubic(factor, "reflect"), x)(x), atol=0.05)


@pytest.mark.parametrize(("factor", "ahead"), [(2, 0), (4, 1)])
def test_block_averages_are_equal_up_to_the_place_of_their_samples(physics, factor, ahead):
    """Theirs average the pixels 4j − 1 to 4j + 2, ours 4j to 4j + 3; with a factor of 2 both average 2j and 2j + 1."""
    x = random_images(2, *SHAPE)
    block = torch.full((1, 1, factor, factor), factor**-2.0, dtype=torch.float64)
    theirs = physics.Downsampling(img_size=SHAPE, filter=block, factor=factor, padding="circular")
    found = theirs.A(x.roll((-ahead, -ahead), (-2, -1)))
    torch.testing.assert_close(found, drawn(SuperResolution(factor), x)(x), rtol=1e-12, atol=1e-12)


def test_the_grey_of_an_image_is_its_luma(physics):
    x = random_images(2, *SHAPE).float()
    ours = drawn(Colorization((0.299, 0.587, 0.114)), x)(x)
    torch.testing.assert_close(physics.Decolorize().A(x), ours, rtol=0, atol=1e-3)


@pytest.mark.parametrize("sides", [(24, 32), (15, 21)])
def test_k_space_of_one_coil_is_equal_and_its_pseudo_inverse_is_not(physics, sides):
    """Their images are complex, two channels of one: ours are the real ones among them, so that opposite entries know each other."""
    x = random_images(2, 1, *sides)
    ours = drawn(MRI(RandomFrequencies(3.0)), x[:1])
    theirs = physics.MRI(mask=ours.mask[0, 0])
    y, pairs = ours(x), theirs.A(torch.cat([x, torch.zeros_like(x)], 1))
    assert torch.equal(torch.complex(*pairs.split(1, 1)), y)
    torch.testing.assert_close(theirs.A_adjoint(pairs)[:, :1], ours.adjoint(y), rtol=1e-12, atol=1e-12)
    found, complex_one = norms(ours.pinv(y) - x), norms(theirs.A_dagger(pairs)[:, :1] - x)
    assert (found < 0.95 * complex_one).all()


def test_k_space_of_several_coils_is_equal(physics):
    """In single precision, theirs."""
    x = random_images(2, 1, 24, 32).float()
    ours = drawn(MultiCoilMRI(RandomFrequencies(3.0), SimulatedMaps(3)), x[:1])
    theirs = physics.MultiCoilMRI(mask=ours.mask[0, 0], coil_maps=ours.maps)
    pairs = theirs.A(torch.cat([x, torch.zeros_like(x)], 1))
    torch.testing.assert_close(torch.complex(pairs[:, 0], pairs[:, 1]), ours(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(theirs.A_adjoint(pairs)[:, :1], ours.adjoint(ours(x)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("side", "odd"), [(33, True), (22, False), (24, False)])
def test_projections_are_equal_up_to_their_centre(physics, side, odd):
    """Theirs turn about the middle of the padded image, ours (and scikit-image's) about a pixel: the same where its side is odd.

    Where it is even the middle lies half a pixel off in both directions: at 0° nothing changes, at 90° the detector is one further.
    Theirs have detectors by angles and no norm, here; their grid is rounded to single precision.
    """
    x = random_images(1, 1, side, side)
    ours = drawn(Tomography(8), x)
    theirs = physics.Tomography(angles=torch.from_numpy(ours.degrees), img_width=side, normalize=False, dtype=torch.float64)
    y, sums = ours(x)[0, 0] * ours.norm, theirs.A(x)[0, 0].T
    assert sums.shape == y.shape and y.shape[1] % 2 == odd
    quarter = sums[4] if odd else sums[4].roll(1)
    torch.testing.assert_close(torch.stack([sums[0], quarter]), y[[0, 4]], rtol=1e-4, atol=1e-4)
    assert torch.allclose(sums, y, rtol=1e-4, atol=1e-4) == odd


def squared_magnitudes(physics, sides, diagonals):
    """|F D P x|² of DeepInverse: P adds zeros around x up to `sides`, D are phases (n, C, H, W), n = 1 or 0."""
    fft, ifft = (partial(function, norm="ortho") for function in (torch.fft.fft2, torch.fft.ifft2))
    layers = len(diagonals) or 0.5  # half a layer is F alone
    return physics.PhaseRetrieval(physics.StructuredRandom(SHAPE, (3, *sides), layers, fft, ifft, diagonals=diagonals))


@pytest.mark.parametrize("pixel_range", [(0.0, 1.0), (-1.0, 1.0)])
@pytest.mark.parametrize("masks", [0, 2])
def test_phase_retrieval_is_equal_up_to_the_square_and_the_order(physics, pixel_range, masks):
    """Theirs are squared magnitudes with the zero frequency in the corner; ours are magnitudes with it in the middle.

    The padding and the gradient are equal, d|z|² = 2|z| d|z|. With several masks, ours share the energy of x among them.
    """
    x = random_images(1, *SHAPE)
    if masks:
        ours = drawn(CodedDiffraction(masks, pixel_range), x)
        phases = torch.polar(torch.ones_like(ours.phase[0]), ours.phase[0])
        theirs = [squared_magnitudes(physics, SHAPE[1:], phase.expand(1, *SHAPE)) for phase in phases]
    else:
        ours = drawn(PhaseRetrieval(2.0, pixel_range), x)
        theirs = [squared_magnitudes(physics, (36, 48), torch.zeros(0))]
    share, seen, y = len(theirs) ** 0.5, ours.field(x), ours(x)
    squares = torch.cat([torch.fft.fftshift(one.A(seen), (-2, -1)) for one in theirs], 1)
    torch.testing.assert_close(squares, (share * y).square(), rtol=1e-10, atol=1e-12)
    v = random_images(*y.shape, seed=2)
    weights = torch.fft.ifftshift(v / (2.0 * share**2 * y), (-2, -1)).chunk(len(theirs), 1)
    slope = sum(one.A_vjp(seen, weight).real for one, weight in zip(theirs, weights, strict=True))
    torch.testing.assert_close(ours.linearise(x)[1](v), slope * (ours.high - ours.low) / 2.0, rtol=1e-8, atol=1e-10)


def test_their_phase_retrieval_is_an_operator_that_is_not_linear(physics):
    """Its A_adjoint is that of the linear part."""
    x = random_images(2, 1, 8, 12).float()
    settings = {"img_size": (1, 8, 12), "output_size": (1, 16, 24), "n_layers": 1}
    operator = drawn(deepinv(partial(physics.StructuredRandomPhaseRetrieval, **settings)), x)
    assert not operator.linear and operator(x).shape == (2, 1, 16, 24)
    torch.testing.assert_close(operator(x), operator.physics.A((x + 1.0) / 2.0))


PHYSICS = {
    "Denoising": (SHAPE, {}),
    "Inpainting": (SHAPE, {"img_size": SHAPE, "mask": 0.5}),
    "Demosaicing": (SHAPE, {"img_size": SHAPE}),
    "BlurFFT": (SHAPE, {"img_size": SHAPE, "filter": torch.rand(1, 1, 5, 5)}),
    "Downsampling": (SHAPE, {"img_size": SHAPE, "filter": "bicubic", "factor": 2}),
    "DownsamplingMatlab": (SHAPE, {"factor": 2}),
    "Decolorize": (SHAPE, {}),
    "Tomography": ((1, 24, 24), {"angles": 10, "img_width": 24}),
    "CompressedSensing": (SHAPE, {"m": 20, "img_size": SHAPE}),
    "SinglePixelCamera": ((1, 16, 32), {"m": 40, "img_size": (1, 16, 32)}),
    "StructuredRandom": (SHAPE, {"img_size": SHAPE, "output_size": SHAPE}),
    "MRI": ((2, 24, 32), {"img_size": (2, 24, 32)}),
}


@pytest.mark.parametrize("name", PHYSICS)
def test_a_linear_physics_is_an_operator(physics, name):
    """Its own adjoint passes, `pinv` by our conjugate gradients explains y, and both adjoints agree."""
    shape, settings = PHYSICS[name]
    x = random_images(2, *shape).float()
    own, exact = (drawn(deepinv(partial(getattr(physics, name), **settings), own_adjoint=choice), x) for choice in (True, False))
    y = own(x)
    torch.testing.assert_close(own.adjoint(y), exact.adjoint(y), rtol=1e-4, atol=1e-4)
    assert own.linear and (norms(own(own.pinv(y)) - y) <= 0.02 * norms(y)).all()


def test_what_is_no_adjoint_is_named(physics):
    """Tomography's approximate one is also its backward pass, so that automatic differentiation does not help."""
    x = random_images(1, 1, 24, 24).float()
    tomography = partial(physics.Tomography, angles=10, img_width=24, adjoint_via_backprop=False)
    for own_adjoint, advice in ((True, "set operator.own_adjoint=false"), (False, "adjoint_via_backprop=true")):
        with pytest.raises(ValueError, match=rf"the adjoint of Tomography is wrong: .* {advice}"):
            drawn(deepinv(tomography, own_adjoint=own_adjoint), x)
    spectral = partial(physics.CompressiveSpectralImaging, img_size=SHAPE)
    x = random_images(1, *SHAPE).float()
    with pytest.raises(ValueError, match="the adjoint of CompressiveSpectralImaging is wrong"):
        drawn(deepinv(spectral), x)
    drawn(deepinv(spectral, own_adjoint=False), x)


def test_a_parameter_that_a_physics_ignores_is_refused(physics):
    with pytest.raises(ValueError, match=r"'fast': True.* are ignored.; leave out operator\.physics\.NAME"):
        deepinv(partial(physics.CompressedSensing, m=20, img_size=SHAPE, fast=True))
