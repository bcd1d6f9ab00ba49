"""Operators one after the other, against the product of their matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from operator_cases import components, dense, generators, inner, measurement, norms, random_images, random_like
from PIL import Image

from diffusion_priors.images.fit import Crop
from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.blur import DeblurGaussian, DeblurMotion
from diffusion_priors.operators.colour import Colorization
from diffusion_priors.operators.composition import Composition, compose
from diffusion_priors.operators.identity import Identity
from diffusion_priors.operators.inpainting import InpaintMask, InpaintRandom
from diffusion_priors.operators.kspace_masks import Equispaced
from diffusion_priors.operators.linear import LinearOperator
from diffusion_priors.operators.mri import MRI
from diffusion_priors.operators.noise_models import NoNoise
from diffusion_priors.operators.phase_retrieval import PhaseRetrieval
from diffusion_priors.operators.random_matrix import RandomMatrix
from diffusion_priors.operators.requirements import LINEAR, SPECTRUM
from diffusion_priors.operators.resampling import SuperResolution, SuperResolutionBicubic


def composed(*chain: Operator) -> Operator:
    return compose({str(index): operator for index, operator in enumerate(chain)})


def drawn(operator: Operator, x: torch.Tensor) -> Operator:
    return operator.draw(x, generators(range(len(x))))


def blur_reduce_mask() -> list[Operator]:
    return [DeblurMotion(5), SuperResolution(2), InpaintRandom(0.5)]


def test_the_matrix_is_the_product_of_the_matrices():
    """Each operator is drawn in turn from the image's one generator, for images of the size that it is given."""
    x, chain, source = random_images(1, 1, 12, 16), blur_reduce_mask(), generators([0])
    operator = drawn(composed(*blur_reduce_mask()), x)
    product, like = torch.eye(12 * 16, dtype=torch.float64), x
    for one in chain:
        product, like = dense(one.draw(like, source)) @ product, one(like)
    torch.testing.assert_close(dense(operator), product, rtol=1e-12, atol=1e-13)
    y = random_like(operator(x), seed=1)
    torch.testing.assert_close(operator.adjoint(y).flatten(), product.T @ y.flatten(), rtol=1e-12, atol=1e-13)
    assert torch.equal(operator.support(y), (product.abs().sum(1) > 0.0).double().view(1, 1, 6, 8))


@pytest.mark.parametrize("sides", [(12, 16), (20, 12)])
def test_separable_operators_compose_to_one_with_a_spectrum(sides):
    """Singular values are NumPy's of the product, and the pseudo-inverse in closed form explains y."""
    x = random_images(1, 1, *sides)
    blur, reduction = drawn(DeblurGaussian(5, 0.8), x), SuperResolutionBicubic(2)
    operator = composed(DeblurGaussian(5, 0.8), SuperResolutionBicubic(2))
    assert SPECTRUM.met(operator, NoNoise())
    y = drawn(operator, x)(x)
    torch.testing.assert_close(y, drawn(reduction, x)(blur(x)), rtol=1e-12, atol=1e-13)
    expected = np.linalg.svd((dense(reduction) @ dense(blur)).numpy(), compute_uv=False)
    found = operator.spectrum().s.flatten().sort(descending=True).values[: len(expected)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(operator(operator.pinv(y)), y, rtol=1e-9, atol=1e-9)
    assert operator.as_image(y) is y and operator.unit == "[-1, 1]"


def test_identities_leave_the_others_as_they_are():
    """With one other operator the composition is that operator, with its spectrum."""
    mask = InpaintRandom()
    assert composed(Identity(), mask, Identity()) is mask
    assert isinstance(composed(Identity(), Identity()), Identity)
    chain = composed(Identity(), *blur_reduce_mask())
    assert [type(one) for one in chain.operators] == [DeblurMotion, SuperResolution, InpaintRandom]


def test_it_is_linear_and_has_a_spectrum_only_where_that_is_known():
    linear, nonlinear = composed(*blur_reduce_mask()), composed(DeblurMotion(), PhaseRetrieval())
    assert LINEAR.met(linear, NoNoise()) and isinstance(linear, LinearOperator) and not SPECTRUM.met(linear, NoNoise())
    assert not LINEAR.met(nonlinear, NoNoise()) and not SPECTRUM.met(nonlinear, NoNoise())
    with pytest.raises(NotImplementedError, match="LinearComposition has no spectrum"):
        drawn(linear, random_images(1, 1, 16, 16)).spectrum()


def test_the_gradient_of_a_nonlinear_composition_is_the_chain_rule():
    """Against autograd through all of them; an operator's own pull-back, and what its device measures, are used."""
    x = random_images(2, 1, 12, 16)
    operator = drawn(composed(DeblurGaussian(5, 0.8), PhaseRetrieval()), x)
    y = operator(x) + 0.1 * random_like(operator(x), seed=3)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(measurement(operator, y).nll(leaf).sum(), leaf)
    torch.testing.assert_close(measurement(operator, y).nll_gradient(x), expected, rtol=1e-10, atol=1e-11)
    assert operator.as_image(y) is None and operator.initial_image(y) is None and operator.unit == PhaseRetrieval().unit

    class Surrogate(Operator):
        def forward(self, x0):
            return x0.round()

        def linearise(self, x0):
            return x0.round(), lambda v: v

        def acquire(self, x0):
            return x0.floor()

    straight = drawn(composed(DeblurGaussian(5, 0.8), Surrogate()), x)
    blur = drawn(DeblurGaussian(5, 0.8), x)
    assert type(straight) is Composition
    torch.testing.assert_close(straight.acquire(x), blur(x).floor(), rtol=0, atol=0)
    torch.testing.assert_close(straight.linearise(x)[1](y[..., :12, :16]), blur.adjoint(y[..., :12, :16]), rtol=1e-12, atol=1e-13)


def test_a_complex_measurement_comes_last():
    """Blur, then k-space: Re⟨A x, y⟩ = ⟨x, Aᴴy⟩ and y is no image. Nothing follows k-space."""
    x = random_images(2, 3, 12, 16)
    operator = drawn(composed(DeblurMotion(5), MRI(Equispaced())), x)
    y = random_like(operator(x), seed=1)
    torch.testing.assert_close(inner(operator(x), y), inner(x, operator.adjoint(y)), rtol=1e-11, atol=0)
    name, first = operator.first_look(y)
    assert name == "zero-filled" and first.shape == x.shape and operator.drawing(y).name == "k-space magnitude"
    assert composed(SuperResolution(2), MRI(Equispaced())).draw(x, generators(range(2))).first_look(y[..., :6, :8]) is None
    assert operator.as_image(y) is None and operator.unit == MRI.unit and components(y).shape[1] == 2 * 3 * 12 * 16
    with pytest.raises(ValueError, match="InpaintRandom would follow an operator whose y is complex; put that one last"):
        drawn(composed(MRI(Equispaced()), InpaintRandom()), x)


def test_what_went_through_no_image_is_no_image():
    """A mask of random measurements has the shape of an image and the unit of none."""
    x = random_images(2, 1, 1, 40)
    operator = drawn(composed(RandomMatrix(40), InpaintRandom()), x)
    y = operator(x)
    assert y.shape == x.shape and operator.as_image(y) is None and operator.unit == Operator.unit
    assert not torch.equal(operator.initial_image(y), y)


def test_channels_may_be_lost_on_the_way():
    x = random_images(2, 3, 8, 12)
    operator = drawn(composed(Colorization(), SuperResolution(2)), x)
    expected = torch.nn.functional.avg_pool2d(x.mean(1, keepdim=True), 2)
    torch.testing.assert_close(operator(x), expected, rtol=1e-12, atol=1e-13)
    assert operator.as_image(expected) is expected and operator.pinv(expected).shape == x.shape


def test_compositions_nest_and_their_copies_share_the_masks_of_the_image():
    """An operator in an operator in an operator is repeated as well; what was drawn stays as it was."""
    x = random_images(2, 1, 16, 20)
    operator = drawn(composed(composed(InpaintRandom(), DeblurMotion(5)), composed(SuperResolution(2), InpaintRandom())), x)
    y, copies = operator(x), random_images(6, 1, 16, 20, seed=4)
    repeated = operator.repeat(3)
    for k in range(3):
        torch.testing.assert_close(repeated(copies)[k::3], operator(copies[k::3]), rtol=1e-12, atol=1e-13)
    assert torch.equal(operator(x), y) and operator.operators[0].image_shape == x.shape
    rows = norms(operator(x[:1].expand(2, -1, -1, -1)) - y[:1])
    assert rows[0] == 0.0 and rows[1] > 0.1


def test_a_mask_of_the_size_of_the_photo_comes_first(tmp_path):
    known = np.ones((16, 32), dtype=bool)
    known[:8, 8:16] = False
    Image.fromarray(known.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    operator = composed(InpaintMask(str(tmp_path / "mask.png")), SuperResolution(2))
    operator.fit = Crop()
    assert operator.file_size((8, 8)) == (16, 32)
    x = torch.ones(1, 1, 8, 8, dtype=torch.float64)
    assert drawn(operator, x)(x)[0, 0].tolist() == [[0.0, 0.0, 1.0, 1.0]] * 2 + [[1.0] * 4] * 2


def test_a_composition_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"at least one operator; set operator\.operators"):
        compose({})
