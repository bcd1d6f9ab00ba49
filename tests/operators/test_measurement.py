"""What a measurement says of x0: residuals, likelihood, gradients, for every operator of conf/operator."""

from __future__ import annotations

import pytest
import torch
from operator_cases import (
    ALL,
    CONFIGS,
    Case,
    components,
    generators,
    measurement,
    norms,
    random_images,
    random_like,
    without_rounding,
)
from torch import Tensor

from diffusion_priors.operators.identity import Identity
from diffusion_priors.operators.inpainting import InpaintRandom
from diffusion_priors.operators.measurement import Measurement
from diffusion_priors.operators.noise_models import Poisson

ONE_EACH = [next(case for case in ALL if case.name == name) for name in CONFIGS]
every_operator = pytest.mark.parametrize("case", ONE_EACH, ids=str)


def drawn(case: Case, folder) -> tuple[Measurement, Tensor]:
    """A measurement of three images with noise, and other images to compare with it."""
    x = random_images(3, 2, *case.sides(seed=3))
    operator = case.drawn(x, folder)
    y = operator(x)
    return measurement(operator, y + 0.2 * random_like(y, seed=1)), random_images(*x.shape, seed=2)


@every_operator
def test_residuals_are_those_of_the_measured_entries(case, tmp_path):
    """‖·‖ and the root mean square, per image; entries outside the support count for nothing, complex ones for two numbers."""
    found, x = drawn(case, tmp_path)
    support = found.support.expand(found.y.shape)
    difference = torch.where(support > 0.0, found.y - found.operator(x), 0.0)
    torch.testing.assert_close(found.residual(x), difference, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(found.norm(x), norms(difference), rtol=1e-12, atol=0)
    numbers = support.flatten(1).sum(1) * (2 if found.y.is_complex() else 1)
    torch.testing.assert_close(found.rms_residual(x), norms(difference) / numbers.sqrt(), rtol=1e-12, atol=0)


@every_operator
def test_gradients_are_those_of_their_values(case, tmp_path):
    """∇‖r‖, ∇‖r‖² and ∇ nll against autograd through `norm` and `nll`, also where the caller records no graph."""
    found, x = drawn(case, tmp_path)
    values = {
        Measurement.norm_gradient: Measurement.norm,
        Measurement.squared_residual_gradient: lambda found, x: found.norm(x).square(),
        Measurement.nll_gradient: Measurement.nll,
    }
    for gradient, value in values.items():
        leaf = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad(value(found, leaf).sum(), leaf)
        for mode in (torch.no_grad, torch.enable_grad, torch.inference_mode):
            with mode():
                result = gradient(found, x)
            assert not result.requires_grad
            torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-10)


@every_operator
def test_gradients_are_slopes(case, tmp_path, monkeypatch):
    """Along a random direction d, (f(x + h d) − f(x − h d))/2h → ⟨∇f, d⟩, per image; of a rounded y, without the rounding."""
    without_rounding(monkeypatch)
    found, x = drawn(case, tmp_path)
    d, h = random_images(*x.shape, seed=5), 1e-5
    for value, gradient in ((found.norm, found.norm_gradient), (found.nll, found.nll_gradient)):
        slope = (value(x + h * d) - value(x - h * d)) / (2.0 * h)
        torch.testing.assert_close(slope, (gradient(x) * d).flatten(1).sum(1), rtol=1e-5, atol=1e-5)


@every_operator
def test_the_likelihood_is_the_normal_density_of_the_measured_components(case, tmp_path):
    found, x = drawn(case, tmp_path)
    law = torch.distributions.Normal(components(found.operator(x)), found.sigma_y.view(-1, 1))
    kept = found.support.expand(found.y.shape)
    kept = components(torch.complex(kept, kept)) if found.y.is_complex() else kept.flatten(1)
    torch.testing.assert_close(found.nll(x), -(kept * law.log_prob(components(found.y))).sum(1), rtol=1e-11, atol=1e-9)


def test_an_operator_may_predict_entries_that_are_not_measured():
    """They count neither in values nor in gradients, although A x0 is not 0 there."""

    class HalfMeasured(Identity):
        def support(self, y):
            return torch.tensor([1.0, 0.0], dtype=y.dtype).view(2, 1, 1)

    x, x0 = random_images(2, 2, 5, 6), random_images(2, 2, 5, 6, seed=1)
    found = measurement(HalfMeasured().draw(x, generators(range(2))), x)
    alone = measurement(Identity().draw(x[:, :1], generators(range(2))), x[:, :1])
    for value in ("norm", "rms_residual", "nll"):
        torch.testing.assert_close(getattr(found, value)(x0), getattr(alone, value)(x0[:, :1]), rtol=1e-12, atol=0)
    for gradient in ("norm_gradient", "squared_residual_gradient", "nll_gradient"):
        result = getattr(found, gradient)(x0)
        torch.testing.assert_close(result[:, :1], getattr(alone, gradient)(x0[:, :1]), rtol=1e-12, atol=0)
        assert (result[:, 1:] == 0.0).all()


@every_operator
def test_a_repeated_measurement_has_the_values_of_its_images(case, tmp_path):
    found, x = drawn(case, tmp_path)
    copies = torch.cat([x, x + 0.1, x - 0.1]).view(3, 3, *x.shape[1:]).transpose(0, 1).flatten(0, 1)
    repeated = found.repeat(3)
    assert torch.equal(repeated.sigma_y, found.sigma_y.repeat_interleave(3, 0))
    for value in ("norm", "nll", "rms_residual"):
        expected = torch.stack([getattr(found, value)(copies[j::3]) for j in range(3)], 1).flatten()
        torch.testing.assert_close(getattr(repeated, value)(copies), expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(repeated.norm_gradient(copies)[2::3], found.norm_gradient(copies[2::3]), rtol=1e-9, atol=1e-10)


def test_the_gradient_of_the_norm_is_0_where_the_residual_is():
    """And an image whose residual is 0 leaves the others as they are."""
    x = random_images(2, 1, 6, 7)
    operator = Identity().draw(x, generators(range(2)))
    found = measurement(operator, x + torch.tensor([0.0, 0.5], dtype=torch.float64).view(2, 1, 1, 1))
    gradient = found.norm_gradient(x)
    assert (gradient[0] == 0.0).all()
    torch.testing.assert_close(norms(gradient)[1], torch.ones((), dtype=torch.float64), rtol=1e-12, atol=0)


def test_a_measurement_is_of_its_support_alone():
    """A given y that is not 0 at missing pixels, and an x0 that is anything there, change nothing."""
    x = random_images(2, 3, 12, 10)
    operator = InpaintRandom().draw(x, generators(range(2)))
    clean, filled = measurement(operator, operator(x)), measurement(operator, x)
    other = operator.mask * x + (1.0 - operator.mask) * 0.9
    assert torch.equal(clean.y, filled.y)
    for value in (filled.norm, filled.rms_residual):
        assert (value(other) == 0.0).all()
    assert (clean.nll_gradient(other + 1.0)[(operator.mask == 0.0).expand_as(x)] == 0.0).all()


def test_the_proximal_step_weighs_every_image_by_itself():
    """For A = I it is (y + w z)/(1 + w), with y itself at w = 0."""
    y, z = random_images(3, 1, 5, 6), random_images(3, 1, 5, 6, seed=1)
    operator = Identity().draw(y, generators(range(3)))
    weight = torch.tensor([0.0, 0.5, 1e6], dtype=torch.float64).view(3, 1, 1, 1)
    torch.testing.assert_close(measurement(operator, y).prox(z, weight), (y + weight * z) / (1.0 + weight), rtol=1e-12, atol=1e-12)


def test_poisson_gradients_are_those_of_the_likelihood_where_there_is_light():
    x = 0.9 * random_images(2, 1, 8, 9)
    operator = Identity().draw(x, generators(range(2)))
    found = Measurement.given(operator, Poisson(40.0), Poisson(40.0).sample(x, generators(range(2))))
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(found.nll(leaf).sum(), leaf)
    torch.testing.assert_close(found.nll_gradient(x), expected, rtol=1e-10, atol=1e-9)
