"""A user's own function: what it must return, and that nothing wrong of it goes unseen."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from operator_cases import generators, norms, random_images, random_like
from own_operators import Ghosted, exposed, ghosted
from torch import Tensor

from diffusion_priors.operators.custom import Custom, CustomLinear
from diffusion_priors.operators.deepinv import DeepInverse, DeepInverseLinear, deepinv


def drawn(operator, x: Tensor):
    return operator.draw(x, generators(range(len(x))))


class Scaled:
    """A class whose objects are called."""

    def __init__(self, gain: float = 3.0) -> None:
        self.gain = gain

    def __call__(self, x0: Tensor) -> Tensor:
        return self.gain * x0


def kspace(x0: Tensor) -> Tensor:
    return torch.fft.fft2(x0, norm="ortho")[..., ::2]


def small(x0: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(x0, 2).mean(1, keepdim=True)


@pytest.mark.parametrize(("function", "gain"), [(partial(Scaled), 3.0), (partial(Scaled, gain=0.5), 0.5), (Scaled(2.0), 2.0)])
def test_a_function_or_an_object_of_a_class_is_the_forward_model(function, gain):
    x = random_images(2, 3, 6, 8)
    torch.testing.assert_close(drawn(Custom(function), x)(x), gain * x, rtol=1e-15, atol=0)
    y = drawn(Custom(partial(exposed, gain=0.5)), x)(x)
    torch.testing.assert_close(y, (0.5 * x).tanh(), rtol=1e-14, atol=0)


def test_the_gradient_of_a_function_is_its_derivative():
    x, v = random_images(2, 3, 6, 8), random_images(2, 3, 6, 8, seed=1)
    y, pull_back = drawn(Custom(exposed), x).linearise(x)
    torch.testing.assert_close(pull_back(v), 1.5 * (1.0 - y**2) * v, rtol=1e-13, atol=1e-14)
    assert torch.equal(y, exposed(x))


def test_a_linear_function_has_its_adjoint_and_its_inverse():
    """(I + s P)ᵀ y = y + s Pᵀy with the shift P, whose powers give the inverse."""
    x, y = random_images(2, 3, 6, 8), random_images(2, 3, 6, 8, seed=1)
    operator = drawn(CustomLinear(ghosted), x)
    torch.testing.assert_close(operator.adjoint(y), y + 0.4 * y.roll(-3, -1), rtol=1e-14, atol=1e-14)
    inverse = sum((-0.4) ** k * y.roll(3 * k, -1) for k in range(60))
    assert (norms(operator.pinv(y) - inverse) <= 1e-5 * norms(inverse)).all()


def test_a_measurement_is_an_image_where_its_unit_says_so():
    x = random_images(2, 3, 6, 8)
    grey, other = drawn(Custom(small), x), drawn(CustomLinear(kspace, "k-space"), x)
    assert grey.as_image(small(x)) is not None and grey.initial_image(small(x)) is None
    y = other(x)
    assert other.as_image(y) is None and other.initial_image(y).dtype == x.dtype and other.unit == "k-space"
    named = drawn(Custom(exposed, "volts"), x)
    assert named.as_image(x) is None and named.initial_image(x) is None


class WrongBackward(torch.autograd.Function):
    """2 x, whose backward pass forgets the 2 and adds a third."""

    @staticmethod
    def forward(context, x):
        return 2.0 * x

    @staticmethod
    def backward(context, gradient):
        return gradient * (4.0 / 3.0)


WRONG = {
    "nothing for an image": (Custom, lambda x: x.mean(), r"lambda> must return a tensor with one row per image, got shape \(\)"),
    "a list": (Custom, lambda x: [x, x], "must return a tensor with one row per image, got list"),
    "a row too many": (Custom, lambda x: torch.cat([x, x]), r"got shape \(4, 3, 6, 8\) for two images"),
    "no image": (Custom, lambda x: x.flatten(1), r"returns \(2, 144\) torch.float64, which is no image; name its unit"),
    "a complex image": (Custom, torch.fft.fft2, "which is no image; name its unit, as in operator.unit=counts"),
    "no gradient": (Custom, lambda x: x.detach() * 2.0, "returns a y without a gradient to x0"),
    "a scale of the batch": (Custom, lambda x: x / x.abs().max(), "computes a row from the other images of the batch"),
    "an error": (Custom, lambda x: x @ x, r"fails on two images of shape \(2, 3, 6, 8\): RuntimeError: "),
    "an offset": (CustomLinear, lambda x: x + 1.0, "is not linear: .* use operator=custom"),
    "a square": (CustomLinear, torch.square, "is not linear"),
    "a wrong gradient": (
        CustomLinear,
        WrongBackward.apply,
        "the adjoint of .* is wrong: .* differ by 0.33; a function of torch",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_with_a_function_is_said_in_one_line(what):
    kind, function, message = WRONG[what]
    with pytest.raises(ValueError, match=message) as refusal:
        drawn(kind(function), random_images(1, 3, 6, 8))
    assert "\n" not in str(refusal.value)


def test_a_function_is_tried_once_for_images_of_a_shape():
    calls = []
    operator = Custom(lambda x: calls.append(len(x)) or 2.0 * x)
    for images in (3, 1, 5):
        drawn(operator, random_images(images, 3, 6, 8))
    assert calls == [2, 1, 1]
    drawn(operator, random_images(1, 1, 6, 8))
    assert calls == [2, 1, 1, 2, 1, 1]


def test_what_cannot_be_called_is_refused():
    with pytest.raises(ValueError, match=r"a dict cannot be called with images; set operator\.function\._target_"):
        Custom({})


# In the manner of DeepInverse


def test_a_physics_gives_its_measurement_without_noise_and_its_adjoint():
    """`forward` of a physics adds noise; here it would fail."""
    x, y = random_images(2, 3, 6, 8), random_images(2, 3, 6, 8, seed=1)
    for own_adjoint in (True, False):
        operator = drawn(deepinv(partial(Ghosted, strength=0.3), own_adjoint=own_adjoint), x)
        torch.testing.assert_close(operator(x), ghosted(x, 0.3), rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(operator.adjoint(y), y + 0.3 * y.roll(-3, -1), rtol=1e-7, atol=1e-8)
    assert operator(x).dtype == torch.float64 and drawn(operator, x.float())(x.float()).dtype == torch.float32


def test_an_adjoint_that_is_none_is_named():
    x = random_images(1, 3, 6, 8)
    with pytest.raises(ValueError, match=r"the adjoint of Ghosted is wrong: .* set operator\.own_adjoint=false"):
        drawn(deepinv(partial(Ghosted, exact=False)), x)
    assert type(drawn(deepinv(partial(Ghosted, exact=False), own_adjoint=False), x)) is DeepInverseLinear


class Light(torch.nn.Module):
    """Not linear: photons of images in [0, 1]."""

    def __init__(self, like=0.5) -> None:
        super().__init__()
        self.register_buffer("gain", torch.rand(1) + like)

    def A(self, x: Tensor) -> Tensor:
        return self.gain * x**2


def test_a_physics_that_is_not_linear_sees_its_own_range():
    x = random_images(2, 3, 6, 8)
    operator = drawn(deepinv(Light), x)
    assert type(operator) is DeepInverse and not operator.linear and operator.as_image(x) is None
    gain = operator.physics.gain
    torch.testing.assert_close(operator(x), gain * ((x + 1.0) / 2.0) ** 2, rtol=1e-12, atol=1e-13)
    wide = drawn(deepinv(Light, pixel_range=(0.0, 255.0)), x)
    torch.testing.assert_close(wide(x), gain * ((x + 1.0) * 127.5) ** 2, rtol=1e-12, atol=1e-9)


def test_what_a_physics_draws_depends_on_the_seed_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    gains = [deepinv(Light, seed=seed).physics.gain.item() for seed in (0, 0, 1)]
    assert gains[0] == gains[1] != gains[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_copies_of_a_physics_see_their_own_rows():
    x = random_images(2, 3, 6, 8)
    operator = drawn(deepinv(Ghosted), x)
    copies = random_like(x.repeat_interleave(2, 0), seed=3)
    torch.testing.assert_close(operator.repeat(2)(copies), operator(copies), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"physics": dict}, r"dict has no A\(x\); set operator\.physics\._target_=deepinv\.physics\.CLASS"),
        ({"physics": Ghosted, "pixel_range": (0.0, 1.0)}, r"Ghosted is linear, .* drop operator\.pixel_range"),
    ],
)
def test_a_physics_that_is_none_and_a_range_without_meaning_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        deepinv(**settings)
