"""What a user's operator gets from its base when it gives only `forward`."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from operator_cases import dense, generators, measurement, norms, random_images, random_like
from torch import Tensor, nn

from diffusion_priors.operators.base import Operator, uniform
from diffusion_priors.operators.linear import LinearOperator
from diffusion_priors.operators.random_matrix import RandomMatrix


class Plain(LinearOperator):
    """y = M x on flattened images, M (m, n)."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = matrix

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.matrix.T)[:, None, None]


class PerImage(Plain):
    """y_b = M_b x_b, M (B, m, n)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bmn,bn->bm", self.matrix, x.flatten(1))[:, None, None]


class Complex(Plain):
    """y = M x with a complex M."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1).to(self.matrix.dtype) @ self.matrix.T).view(len(x), 2, -1)


class SquaredMean(Operator):
    """y = mean(x)² over 2 × 2 blocks: not linear, and smaller than x."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 2).square()


SHAPE = (2, 3, 4)
"""(C, H, W) of the images, 24 numbers."""


def matrix(m: int, rank: int, seed: int = 0) -> Tensor:
    """(m, 24) of the given rank, its other singular values between 0.5 and 2."""
    left, _ = torch.linalg.qr(random_images(m, m, seed=seed))
    right, _ = torch.linalg.qr(random_images(24, 24, seed=seed + 1))
    return left[:, :rank] @ torch.diag(torch.linspace(0.5, 2.0, rank, dtype=torch.float64)) @ right[:, :rank].T


matrices = pytest.mark.parametrize(("m", "rank"), [(24, 24), (10, 10), (40, 24), (24, 7), (40, 5), (10, 1)], ids=str)


def plain(m: int, rank: int, images: int = 3) -> Plain:
    return Plain(matrix(m, rank)).draw(random_images(images, *SHAPE), generators(range(images)))


@matrices
def test_the_adjoint_of_forward_alone_is_the_transpose(m, rank):
    operator = plain(m, rank)
    y = random_images(3, 1, 1, m, seed=3)
    expected = (y.flatten(1) @ operator.matrix).view(3, *SHAPE)
    torch.testing.assert_close(operator.adjoint(y), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_adjoint_needs_no_graph_of_its_caller(mode):
    operator = plain(10, 10)
    with mode():
        y = random_images(3, 1, 1, 10)
        x = operator.adjoint(y)
    assert not x.requires_grad
    torch.testing.assert_close(x.flatten(1), y.flatten(1) @ operator.matrix, rtol=1e-13, atol=1e-13)


@matrices
def test_conjugate_gradients_give_the_pseudoinverse(m, rank):
    """x̂ − A⁺y lies in the row space, where ‖AᵀA e‖ ≥ s² ‖e‖ with s the least singular value that is not zero."""
    operator = plain(m, rank)
    y = random_images(3, 1, 1, m, seed=3)
    expected = (y.flatten(1) @ torch.linalg.pinv(operator.matrix, rtol=1e-10).T).view(3, *SHAPE)
    bound = operator.cg_tolerance * norms(operator.adjoint(y)) / 0.5**2 if rank > 1 else 1e-12
    assert (norms(operator.pinv(y) - expected) <= bound + 1e-12).all()


def test_conjugate_gradients_stop_image_by_image():
    """An easy image, a hard and very faint one, and a black one are each treated as if alone, and black stays black."""
    stack = torch.stack([torch.eye(24, dtype=torch.float64), matrix(24, 24), matrix(24, 24, seed=5)])
    y = random_images(3, 1, 1, 24, seed=3)
    y[1:] *= torch.tensor([1e-9, 0.0], dtype=torch.float64).view(2, 1, 1, 1)
    together = PerImage(stack).draw(random_images(3, *SHAPE), generators(range(3)))
    x = together.pinv(y)
    for b in range(3):
        alone = PerImage(stack[b : b + 1]).draw(random_images(1, *SHAPE), generators([b]))
        expected = alone.pinv(y[b : b + 1])
        assert norms(x[b : b + 1] - expected) <= 1e-10 * norms(expected)
    torch.testing.assert_close(x[0].flatten(), y[0].flatten(), rtol=1e-12, atol=1e-12)
    assert (x[2] == 0.0).all()


def test_the_pseudoinverse_scales_with_the_measurement():
    """A⁺(c y) = c A⁺y, from faint to bright."""
    operator = plain(24, 7)
    y = random_images(3, 1, 1, 24, seed=3)
    for scale in (1e-12, 1e12):
        torch.testing.assert_close(operator.pinv(scale * y) / scale, operator.pinv(y), rtol=1e-9, atol=1e-9)


def test_a_measurement_of_another_shape_is_imaged_by_the_pseudoinverse():
    operator = plain(10, 10)
    y = operator(random_images(3, *SHAPE))
    assert operator.as_image(y) is None
    image = operator.initial_image(y)
    assert (norms(operator(image) - y) <= 2.0 / 0.5**2 * operator.cg_tolerance * norms(operator.adjoint(y))).all()


def test_an_operator_is_measured_everywhere_unless_it_says_otherwise():
    y = random_images(3, 1, 1, 10)
    assert torch.equal(plain(10, 10).support(y) * y, y)


@matrices
def test_the_gradient_of_the_squared_residual_of_a_linear_operator_is_in_closed_form(m, rank):
    """∇ ‖M x − y‖² = 2 Mᵀ(M x − y), and the same by the base class's autograd."""
    operator = plain(m, rank)
    x, y = random_images(3, *SHAPE), random_images(3, 1, 1, m, seed=3)
    residual = x.flatten(1) @ operator.matrix.T - y.flatten(1)
    expected = (2.0 * residual @ operator.matrix).view_as(x)
    torch.testing.assert_close(measurement(operator, y).squared_residual_gradient(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(2.0 * Operator.linearise(operator, x)[1](operator(x) - y), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
def test_the_gradient_of_the_squared_residual_of_a_nonlinear_operator_is_the_closed_form(mode):
    """y = m², m the mean over n pixels: ∇_x ‖m² − y‖² = 4 m (m² − y)/n on each of them."""
    x, y = random_images(3, 2, 6, 8), random_images(3, 2, 3, 4, seed=1)
    operator = SquaredMean().draw(x, generators(range(3)))
    mean = nn.functional.avg_pool2d(x, 2)
    expected = (mean * (mean.square() - y)).repeat_interleave(2, -1).repeat_interleave(2, -2)
    with mode():
        gradient = measurement(operator, y).squared_residual_gradient(x)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-13)
    assert not gradient.requires_grad and not x.requires_grad


def test_the_gradient_of_an_image_ignores_the_others():
    x, y = random_images(3, 2, 6, 8), random_images(3, 2, 3, 4, seed=1)
    operator = SquaredMean().draw(x, generators(range(3)))
    alone = SquaredMean().draw(x[1:2], generators([1]))
    together, own = (measurement(*pair).squared_residual_gradient for pair in ((operator, y), (alone, y[1:2])))
    torch.testing.assert_close(together(x)[1:2], own(x[1:2]), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("m", [10, 30])
def test_a_complex_measurement_needs_only_forward(m):
    """Aᴴ = Re(Mᴴ ·), A⁺, (AᴴA + wI)⁻¹, gradients, the likelihood and the proximal step against [Re M; Im M] as a real matrix."""
    entries = torch.complex(matrix(m, min(m, 24)), matrix(m, min(m, 24), seed=7))
    operator = Complex(entries).draw(random_images(3, *SHAPE), generators(range(3)))
    real, x = torch.cat([entries.real, entries.imag]), random_images(3, *SHAPE, seed=4)
    y = random_like(operator(x), seed=3)
    stacked, weight = torch.cat([y.flatten(1).real, y.flatten(1).imag], 1), 0.3
    regular = real.T @ real + weight * torch.eye(24, dtype=torch.float64)
    close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)

    torch.testing.assert_close(operator.adjoint(y).flatten(1), stacked @ real, rtol=1e-12, atol=1e-12)
    close(operator.pinv(y).flatten(1), stacked @ torch.linalg.pinv(real).T)
    close(operator.solve(x, weight).flatten(1), torch.linalg.solve(regular, x.flatten(1).T).T)
    found = measurement(operator, y, sigma=0.5)
    close(found.prox(x, weight).flatten(1), torch.linalg.solve(regular, (stacked @ real + weight * x.flatten(1)).T).T)
    assert operator.as_image(y) is None and operator.initial_image(y).dtype == x.dtype

    residual = stacked - x.flatten(1) @ real.T
    torch.testing.assert_close(found.norm(x), norms(residual), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.norm_gradient(x).flatten(1), -residual @ real / norms(residual)[:, None], rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(found.nll_gradient(x).flatten(1), -residual @ real / 0.5**2, rtol=1e-11, atol=1e-12)
    law = torch.distributions.Normal(torch.zeros(()).double(), 0.5)
    torch.testing.assert_close(found.nll(x), -law.log_prob(residual).sum(1), rtol=1e-11, atol=0)


def test_a_nonlinear_operator_needs_only_forward():
    """Residuals, likelihood and their gradients follow from `forward`; there is no image to start from."""
    x, other = random_images(3, 2, 6, 8), random_images(3, 2, 6, 8, seed=2)
    operator = SquaredMean().draw(x, generators(range(3)))
    found = measurement(operator, operator(x), sigma=0.5)
    leaf = other.clone().requires_grad_()
    residual = found.y - nn.functional.avg_pool2d(leaf, 2).square()
    (expected,) = torch.autograd.grad(0.5 * residual.square().sum() / 0.5**2, leaf)
    torch.testing.assert_close(found.nll_gradient(other), expected, rtol=1e-12, atol=1e-13)
    assert (found.norm(x) == 0.0).all() and not operator.linear
    assert operator.as_image(found.y) is None and operator.initial_image(found.y) is None
    assert operator.repeat(2).image_shape == (6, 2, 6, 8)


def test_a_buffer_without_one_row_per_image_is_refused():
    operator = plain(10, 10)
    operator.register_buffer("mask", torch.ones(2, 1, 3, 4))
    with pytest.raises(ValueError, match=r"Plain\.mask has 2 rows for 3 images"):
        operator.repeat(2)


def test_every_image_needs_a_generator():
    with pytest.raises(ValueError, match="got 3 images and 2 generators"):
        Operator().draw(random_images(3, *SHAPE), generators(range(2)))


def test_random_measurements_are_no_image_even_in_the_shape_of_one():
    like = random_images(1, 1, 1, 12)
    operator = RandomMatrix(rows=12).draw(like, generators([0]))
    y = operator(like)
    assert y.shape == like.shape and operator.as_image(y) is None
    torch.testing.assert_close(operator.initial_image(y), like, rtol=1e-8, atol=1e-8)


def test_dense_is_the_matrix():
    """The matrix that the other tests compare with."""
    operator = Plain(matrix(10, 7)).draw(random_images(1, *SHAPE), generators([0]))
    torch.testing.assert_close(dense(operator, channels=SHAPE[0]), operator.matrix, rtol=1e-14, atol=1e-14)


def test_uniform_numbers_are_uniform_and_each_image_has_its_own():
    """Mean 1/2 and variance 1/12 within five standard errors; var(s²) = (1/80 − 1/144)/n."""
    n = 50_000
    u = uniform(generators((1, 2)), n, like=random_images(1))
    assert (u >= 0.0).all() and (u < 1.0).all()
    assert ((u.mean(1) - 0.5).abs() <= 5.0 * (1.0 / 12.0 / n) ** 0.5).all()
    assert ((u.var(1) - 1.0 / 12.0).abs() <= 5.0 * ((1.0 / 80.0 - 1.0 / 144.0) / n) ** 0.5).all()
    assert abs(torch.corrcoef(u)[0, 1]) <= 5.0 / n**0.5
    torch.testing.assert_close(uniform(generators((2,)), n, like=random_images(1)), u[1:], rtol=0, atol=0)
