"""Operators one after the other, against the product of their matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from operator_cases import components, dense, generators, inner, measurement, norms, random_images, random_like
from PIL import Image

from diffusion_priors.images.fit import Crop, Exact, Stretch
from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.blur import DeblurGaussian, DeblurKernel, DeblurMotion
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
    """Also on images that became smaller. Singular values are NumPy's of the product; A⁺ in closed form explains y."""
    x, chain = random_images(1, 1, *sides), [SuperResolution(2), DeblurGaussian(5, 0.8), SuperResolutionBicubic(2)]
    operator = composed(*chain)
    assert SPECTRUM.met(operator, NoNoise())
    y, expected, product = drawn(operator, x)(x), x, torch.eye(x.numel(), dtype=torch.float64)
    for one in chain:
        drawn(one, expected)
        expected, product = one(expected), dense(one) @ product
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-13)
    expected = np.linalg.svd(product.numpy(), compute_uv=False)
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
    x = torch.ones(1, 1, 8, 8, dtype=torch.float64)
    assert drawn(operator, x)(x)[0, 0].tolist() == [[0.0, 0.0, 1.0, 1.0]] * 2 + [[1.0] * 4] * 2
    assert operator.file_size((8, 8)) == (16, 32)


PHOTO = (32, 64)


@pytest.mark.parametrize(
    ("fit", "size", "wanted"),
    [(Crop(), PHOTO, PHOTO), (Stretch(), PHOTO, PHOTO), (Exact(), (16, 16), None), (Crop(), (16, 16), None), (Crop(), (8, 8), None)],
)
def test_a_mask_that_comes_later_covers_the_same_part_of_the_photo(tmp_path, fit, size, wanted):
    """Blur, reduction by 2, mask: the mask of a photo, of x0 or of the small image hides the same pixels of the small image.

    It is known exactly where a photo with zeros in the missing part, brought to the size of x0 and then reduced, has none. Here the
    missing part covers whole pixels of the small image.
    """
    missing = np.zeros(size, dtype=bool)
    rows, columns = size[0] // 8, size[1] // 8
    missing[rows : 3 * rows, 4 * columns : 5 * columns] = True
    Image.fromarray(np.where(missing, 0, 255).astype(np.uint8)).save(tmp_path / "mask.png")
    operator = composed(DeblurGaussian(3, 0.5), SuperResolution(2), InpaintMask(str(tmp_path / "mask.png")))
    operator.fit = fit
    x = torch.ones(1, 1, 16, 16, dtype=torch.float64)
    y = drawn(operator, x)(x)[0, 0].numpy()
    photo = np.where(missing, 0.0, 1.0)
    fitted = fit(photo[..., None], (16, 16)) if size != (8, 8) else photo.repeat(2, 0).repeat(2, 1)
    expected = fitted.reshape(8, 2, 8, 2).mean((1, 3)) > 1.0 - 1e-9
    assert operator.file_size((16, 16)) == wanted and not expected.all()
    np.testing.assert_array_equal(y != 0.0, expected)


def test_a_kernel_that_comes_later_is_scaled_to_the_image_that_it_blurs(tmp_path):
    """A kernel of the photo's size after a reduction by 2 is that of the small image: its mean moves by as many of its pixels."""
    kernel = np.zeros(PHOTO)
    kernel[16, 32] = kernel[16, 40] = 0.5
    np.save(tmp_path / "kernel.npy", kernel)
    operator = composed(SuperResolution(2), DeblurKernel(str(tmp_path / "kernel.npy"), "circular"))
    operator.fit = Crop()
    x = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    x[..., 8:10, 8:10] = 1.0
    y = drawn(operator, x)(x)[0, 0]
    assert operator.file_size((16, 16)) == PHOTO
    torch.testing.assert_close(y.sum(), torch.tensor(1.0, dtype=torch.float64))
    mean = (y.sum(0) * torch.arange(8)).sum().item()  # 8 of 32 columns of the crop are 2 of 8, and half of the light moves
    assert mean == pytest.approx(5.0, abs=1e-9)


def test_files_for_images_of_two_sizes_are_refused(tmp_path):
    for name, size in (("one.png", (32, 64)), ("two.png", (24, 24))):
        image = Image.new("L", size[::-1], 255)
        image.paste(0, (20, 8, 30, 20))
        image.save(tmp_path / name)
    operator = composed(InpaintMask(str(tmp_path / "one.png")), SuperResolution(2), InpaintMask(str(tmp_path / "two.png")))
    operator.fit = Crop()
    drawn(operator, torch.ones(1, 1, 16, 16))
    with pytest.raises(
        ValueError, match="files of the composition are for images of 24 x 24 and 32 x 64; give it masks and kernels of one"
    ):
        operator.file_size((16, 16))


def test_a_composition_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"at least one operator; set operator\.operators"):
        compose({})
