"""Proximal steps of nonlinear operators, and conjugate gradients where they are linear."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from operator_cases import Case, generators, inner, measurement, norms, random_images
from scipy.optimize import minimize
from torch import Tensor

from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.blur import DeblurGaussian
from diffusion_priors.operators.krylov import cg
from diffusion_priors.operators.nonlinear import PenalisedFit
from diffusion_priors.operators.phase_retrieval import PhaseRetrieval


class Saturating(Operator):
    """y = tanh(2 B x), B a blur."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(2.0 * torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1))


class HalfMeasured(Saturating):
    """The same, with the left half of y measured alone."""

    def support(self, y: Tensor) -> Tensor:
        return (torch.arange(y.shape[-1]) < y.shape[-1] // 2).to(y)


OPERATORS = [Saturating, HalfMeasured, PhaseRetrieval]
every_operator = pytest.mark.parametrize("make", OPERATORS, ids=lambda make: make.__name__)


def drawn(make, images=3, seed=0):
    """A measurement of random images, and a point 0.2 away from each."""
    x = 0.7 * random_images(images, 1, 6, 8, seed=seed)
    operator = make().draw(x, generators(range(images)))
    return measurement(operator, operator(x) + 0.02 * random_images(*operator(x).shape, seed=5)), x + 0.2 * random_images(*x.shape, seed=6)


def objective(found, z, weight):
    """½‖y − A(x)‖² + w/2 ‖x − z‖² and its gradient for flat x of image 0, by autograd."""

    def at(flat):
        x = torch.from_numpy(flat).view(z.shape).requires_grad_()
        value = 0.5 * (found.support * (found.y - found.operator(x))).square().sum() + 0.5 * weight * (x - z).square().sum()
        (gradient,) = torch.autograd.grad(value, x)
        return value.item(), gradient.flatten().numpy()

    return at


@every_operator
def test_a_step_is_the_exact_one_of_the_linearised_operator(make):
    """f, ∇f and x + a d with a = −⟨∇f, d⟩/(w‖d‖² + ‖J d‖²), J the dense Jacobian of the measured entries."""
    found, z = drawn(make, images=1)
    weight, x, d = 0.3, z + 0.01 * random_images(*z.shape, seed=7), 0.01 * random_images(*z.shape, seed=8)
    fit = PenalisedFit(found.operator, found.y, found.support, z, weight)
    value, gradient = objective(found, z, weight)(x.flatten().numpy())
    point = fit.at(x)
    assert point.value.item() == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(point.gradient.flatten(), gradient, rtol=1e-10, atol=1e-12)
    jacobian = torch.autograd.functional.jacobian(lambda x: (found.support * found.operator(x)).flatten(), x).flatten(1)
    pushed, flat = jacobian @ d.flatten(), d.flatten()
    length = -(torch.from_numpy(gradient) @ flat) / (weight * flat @ flat + pushed @ pushed)
    torch.testing.assert_close(fit.along(point, d).x, x + length * d, rtol=1e-10, atol=1e-12)


@every_operator
@pytest.mark.parametrize("weight", [0.05, 1.0])
def test_the_proximal_step_is_the_minimum_that_scipy_finds(make, weight):
    """Both go downhill from z to the same local minimum."""
    found, z = drawn(make, images=1)
    x = found.prox(z, weight, 300)
    reference = minimize(
        objective(found, z, weight),
        z.flatten().numpy(),
        jac=True,
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 2000},
    )
    assert objective(found, z, weight)(x.flatten().numpy())[0] == pytest.approx(reference.fun, rel=1e-7)
    np.testing.assert_allclose(x.flatten(), reference.x, atol=2e-4)


@every_operator
@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_every_iteration_lowers_the_objective_of_every_image(make, weight):
    found, z = drawn(make)
    values = []
    for iterations in range(8):
        x = found.prox(z, torch.full((3, 1, 1, 1), weight, dtype=z.dtype), iterations)
        values.append(0.5 * norms(found.residual(x)).square() + 0.5 * weight * norms(x - z).square())
    falls = torch.stack(values).diff(dim=0)
    assert (falls < 0.0).all()
    assert (values[-1] < 0.5 * values[0]).all()


@every_operator
def test_an_image_in_a_batch_has_the_proximal_point_it_has_alone(make):
    """Each with its own weight; another image that is not finite changes nothing."""
    found, z = drawn(make)
    weight = torch.tensor([0.01, 0.3, 5.0], dtype=z.dtype).view(3, 1, 1, 1)
    together = found.prox(z, weight, 15)
    spoilt = z.clone()
    spoilt[0] = torch.nan
    others = found.prox(spoilt, weight, 15)
    assert torch.equal(others[1:], together[1:]) and others[0].isnan().all()
    for b in range(3):
        operator = make().draw(z[b : b + 1], generators([b]))
        alone = measurement(operator, found.y[b : b + 1]).prox(z[b : b + 1], weight[b : b + 1], 15)
        torch.testing.assert_close(alone, together[b : b + 1], rtol=1e-9, atol=1e-10)


@every_operator
def test_the_push_forward_is_the_slope_along_a_direction_and_the_transpose_of_the_pull_back(make):
    found, x = drawn(make)
    d, h = random_images(*x.shape, seed=3), 1e-6
    slope = (found.operator(x + h * d) - found.operator(x - h * d)) / (2.0 * h)
    y, pull_back = found.operator.linearise(x)
    v = random_images(*y.shape, seed=4)
    for mode in (torch.no_grad, torch.enable_grad, torch.inference_mode):
        with mode():
            pushed = found.operator.push_forward(x, d)
        assert not pushed.requires_grad
        torch.testing.assert_close(pushed, slope, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(inner(pushed, v), inner(d, pull_back(v)), rtol=1e-10, atol=1e-12)


class Flattening(Operator):
    """y = arctan(3 B x), B a blur: steps of Gauss and Newton go far beyond the minimum from where it is flat. Counts its calls."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return torch.arctan(3.0 * torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1))


class WithoutHalving(PenalisedFit):
    halvings = 0


def flat_fit(kind=PenalisedFit, weight=0.0):
    """A start at which the first step is too long for both images."""
    x = 2.0 + 0.3 * random_images(2, 1, 4, 5)
    operator = Flattening().draw(x, generators(range(2)))
    y = operator(0.5 * torch.ones_like(x))
    return kind(operator, y, torch.ones(()).to(x), torch.zeros_like(x), weight), x


def test_a_step_that_is_too_long_is_halved_and_one_that_stays_so_is_not_taken():
    fit, x = flat_fit()
    point = fit.at(x)
    reached = fit.along(point, -point.gradient)
    assert (reached.value < point.value).all()
    refused, _ = flat_fit(WithoutHalving)
    stayed = refused.along(refused.at(x), -point.gradient)
    assert torch.equal(stayed.x, x) and torch.equal(stayed.value, point.value)
    assert (fit.at(fit.minimise(x, 40)).value < 0.01 * point.value).all()


def test_an_image_that_is_not_finite_costs_no_evaluation():
    """The halvings are for images that can still be lowered."""
    fit, x = flat_fit()
    counts = []
    for start in (x, torch.cat([x[:1], torch.full_like(x[:1], torch.nan)])):
        before = fit.operator.calls
        fit.minimise(start, 12)
        counts.append(fit.operator.calls - before)
    assert counts[1] <= counts[0]


def test_directions_are_those_of_polak_and_ribiere_with_no_weight_below_zero():
    """The recursion written out, for a walk in which the rule gives negative weights, which count as 0."""
    fit, x = flat_fit(weight=1e-3)
    point, weights = fit.at(x), []
    d = -point.gradient
    for _ in range(10):
        after = fit.along(point, d)
        weights.append((after.gradient * (after.gradient - point.gradient)).flatten(1).sum(1) / point.gradient.flatten(1).square().sum(1))
        d = -after.gradient + weights[-1].clamp_min(0.0).view(2, 1, 1, 1) * d
        point = after
    assert (torch.stack(weights) < -1e-3).any() and (torch.stack(weights) > 1e-3).any()
    torch.testing.assert_close(fit.minimise(x, 10), point.x, rtol=1e-9, atol=1e-10)


def test_on_a_linear_operator_the_iterations_are_conjugate_gradients():
    """Iterate k is that of `cg` on (AᴴA + w I)(x − z) = Aᴴ(y − A z), for every k."""
    z, weight = random_images(2, 1, 8, 9), 0.2
    operator = DeblurGaussian(size=3).draw(z, generators(range(2)))
    found = measurement(operator, operator(random_images(*z.shape, seed=1)))
    fit = PenalisedFit(operator, found.y, found.support, z, weight)
    for k in (1, 2, 5):
        wanted = z + cg(lambda v: operator.adjoint(operator(v)) + weight * v, operator.adjoint(found.residual(z)), 0.0, k)
        torch.testing.assert_close(fit.minimise(z, k), wanted, rtol=1e-9, atol=1e-10)


def test_a_linear_operator_keeps_its_closed_form(tmp_path):
    """The number of iterations is for nonlinear operators alone."""
    z = random_images(2, 1, 16, 16)
    operator = Case("inpaint_random").drawn(z, tmp_path)
    found = measurement(operator, operator(random_images(*z.shape, seed=1)))
    assert torch.equal(found.prox(z, 0.3, 1), found.prox(z, 0.3, 50))


def test_a_fit_that_is_exact_stays_where_it_is():
    """No direction is left; another image still moves."""
    x = 0.5 * random_images(2, 1, 6, 8)
    operator = Saturating().draw(x, generators(range(2)))
    found = measurement(operator, operator(x))
    z = x + torch.tensor([0.0, 0.2], dtype=x.dtype).view(2, 1, 1, 1)
    moved = found.prox(z, 0.0, 10)
    assert torch.equal(moved[0], x[0])
    assert norms(found.residual(moved))[1] < 0.1 * norms(found.residual(z))[1]
