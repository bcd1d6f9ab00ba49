"""What holds for every operator of conf/operator at every boundary: Aᵀ, A⁺, gradients, draws, batches."""

from __future__ import annotations

import pytest
import torch
from operator_cases import (
    ALL,
    LINEAR,
    by_conjugate_gradients,
    dense,
    generators,
    inner,
    largest_singular_value,
    misfit_bound,
    norms,
    random_images,
)
from torch import Tensor, nn

every_operator = pytest.mark.parametrize("case", ALL, ids=str)
every_linear_operator = pytest.mark.parametrize("case", LINEAR, ids=str)
every_batch = pytest.mark.parametrize(("images", "channels"), [(1, 1), (1, 3), (3, 1), (3, 3)])


def parts(operator: nn.Module) -> dict[str, Tensor]:
    """What a draw fixed: the mask, the kernel, the matrices."""
    return dict(operator.named_buffers())


@every_linear_operator
@every_batch
def test_the_adjoint_is_the_transpose(case, images, channels, tmp_path):
    """⟨A x, y⟩ = ⟨x, Aᵀ y⟩."""
    x = random_images(images, channels, *case.sides(seed=images + 10 * channels))
    operator = case.drawn(x, tmp_path)
    y = random_images(*operator(x).shape, seed=1)
    left, right = inner(operator(x), y), inner(x, operator.adjoint(y))
    assert ((left - right).abs() <= 1e-10 * norms(operator(x)) * norms(y)).all()


@every_linear_operator
@every_batch
def test_forward_is_linear(case, images, channels, tmp_path):
    """A(a x + b z) = a A x + b A z."""
    shape = (images, channels, *case.sides(seed=images + 10 * channels))
    x, z = random_images(*shape), random_images(*shape, seed=1)
    operator = case.drawn(x, tmp_path)
    torch.testing.assert_close(operator(1.7 * x - 0.6 * z), 1.7 * operator(x) - 0.6 * operator(z), rtol=1e-12, atol=1e-12)


@every_linear_operator
@pytest.mark.parametrize(("images", "channels"), [(1, 3), (3, 1)])
def test_the_pseudoinverse_explains_what_was_measured(case, images, channels, tmp_path):
    """A A⁺ A x = A x, as far as the operator says."""
    x = random_images(images, channels, *case.sides(seed=images))
    operator = case.drawn(x, tmp_path)
    y = operator(x)
    assert (norms(operator(operator.pinv(y)) - y) <= misfit_bound(operator, x)).all()


@every_linear_operator
def test_the_pseudoinverse_is_the_least_squares_solution_of_least_norm(case, tmp_path):
    """Aᵀ(y − A A⁺y) = 0 for any y, and A⁺y is orthogonal to the null space of A.

    The first for A⁺ in closed form: conjugate gradients meet their tolerance where the condition allows, which the
    operators of test_operator_base.py and test_operator_blur.py do.
    """
    like = random_images(1, 1, *case.sides(seed=5, most=20))
    operator = case.drawn(like, tmp_path)
    y = random_images(*operator(like).shape, seed=2)
    x = operator.pinv(y)
    _, values, right = torch.linalg.svd(dense(operator))
    if not by_conjugate_gradients(operator):
        bound = (getattr(operator, "cutoff", 0.0) + 1e-12) * values[0] * norms(y)
        assert (norms(operator.adjoint(y - operator(x))) <= bound).all()
    null = right[int((values > 1e-12 * values[0]).sum()) :]
    assert torch.linalg.vector_norm(null @ x.flatten()) <= 1e-9 * norms(x)


@every_linear_operator
def test_the_pseudoinverse_in_single_precision_is_that_in_double(case, tmp_path):
    """Singular values below `cutoff` count as zero, so rounding grows by no more than 1/(cutoff ‖A‖).

    Iterated, both explain y as far as conjugate gradients go.
    """
    x = random_images(1, 1, *case.sides(seed=6))
    double, single = case.drawn(x, tmp_path), case.drawn(x.float(), tmp_path)
    y = double(x)
    found = single.pinv(y.float()).double()
    if by_conjugate_gradients(double):
        assert norms(double(found) - y) <= misfit_bound(double, x)
    else:
        growth = 1.0 / (getattr(double, "cutoff", 1.0) * largest_singular_value(double, x))
        assert norms(found - double.pinv(y)) <= 8 * torch.finfo(torch.float32).eps * growth * norms(y)


@every_operator
def test_forward_has_the_gradient_autograd_gives(case, tmp_path):
    x = random_images(1, 1, *case.sides(seed=7, most=20)).requires_grad_()
    operator = case.drawn(x, tmp_path)
    assert torch.autograd.gradcheck(operator, x)


@every_operator
@every_batch
def test_the_misfit_gradient_is_that_of_the_squared_residual(case, images, channels, tmp_path):
    """∇_x ‖A x − y‖₂², also where the caller records no graph."""
    x = random_images(images, channels, *case.sides(seed=images + 10 * channels)).requires_grad_()
    operator = case.drawn(x, tmp_path)
    y = random_images(*operator(x).shape, seed=1)
    (expected,) = torch.autograd.grad((operator(x) - y).square().sum(), x)
    with torch.no_grad():
        gradient = operator.misfit_gradient(x, y)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)


@every_operator
def test_an_image_in_a_batch_is_treated_as_if_alone(case, tmp_path):
    """Masks and kernels are equal, y and Aᵀy are to rounding."""
    x = random_images(3, 3, *case.sides(seed=8))
    together = case.drawn(x, tmp_path, ids=(4, 7, 9))
    y = together(x)
    for b, name in enumerate((4, 7, 9)):
        image, own = x[b : b + 1], y[b : b + 1]
        alone = case.drawn(image, tmp_path, ids=(name,))
        for part, tensor in parts(together).items():
            row = tensor[b : b + 1] if tensor.ndim == 4 and len(tensor) == 3 else tensor
            torch.testing.assert_close(row, parts(alone)[part], rtol=0, atol=1e-14 if tensor.is_complex() else 0)
        torch.testing.assert_close(alone(image), own, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(alone.support(own) * own, own, rtol=0, atol=0)
        if case.linear:
            torch.testing.assert_close(alone.adjoint(own), together.adjoint(y)[b : b + 1], rtol=1e-12, atol=1e-13)


@every_linear_operator
def test_an_image_in_a_batch_has_the_pseudoinverse_it_has_alone(case, tmp_path):
    """To rounding; iterated, both explain y as far as conjugate gradients go."""
    x = random_images(2, 1, *case.sides(seed=8, most=20))
    together = case.drawn(x, tmp_path, ids=(4, 7))
    alone = case.drawn(x[1:], tmp_path, ids=(7,))
    y = together(x)
    expected = alone.pinv(y[1:])
    gap = together.pinv(y)[1:] - expected
    if by_conjugate_gradients(alone):
        assert norms(alone(gap)) <= 2.0 * misfit_bound(alone, x[1:])
    else:
        assert norms(gap) <= 1e-10 * norms(expected)


@every_operator
def test_a_draw_depends_on_the_image_and_the_seed_alone(case, tmp_path):
    """Neither on what was drawn before nor on the order of the batch."""
    x = random_images(2, 1, *case.sides(seed=9))
    operator = case.drawn(x, tmp_path, ids=(1, 2))
    first = operator(x)
    operator.draw(x.flip(0), generators((2, 1)))
    torch.testing.assert_close(operator(x.flip(0)).flip(0), first, rtol=1e-12, atol=1e-13)
    operator.draw(random_images(3, 1, *x.shape[-2:]), generators((5, 6, 7)))
    operator.draw(x, generators((1, 2)))
    torch.testing.assert_close(operator(x), first, rtol=0, atol=0)


@every_operator
def test_an_operator_says_whether_it_is_random(case, tmp_path):
    """Of one image, a random operator makes another y for another image and for another seed; the others do not."""
    same = random_images(1, 1, *case.sides(seed=10)).repeat(2, 1, 1, 1)
    operator = case.drawn(same, tmp_path, ids=(1, 2))
    y, other_seed = operator(same), case.drawn(same, tmp_path, ids=(1, 2), seed=1)(same)
    for other in (y.flip(0), other_seed):
        differ = (norms(other - y) > 1e-3 * norms(y)).all()
        agree = (norms(other - y) <= 1e-12 * norms(y)).all()
        assert differ if operator.random else agree


@every_operator
def test_a_draw_takes_the_type_of_the_images_and_is_the_same_in_each(case, tmp_path):
    x = random_images(2, 3, *case.sides(seed=11))
    double, single = case.drawn(x, tmp_path), case.drawn(x.float(), tmp_path)
    for part, tensor in parts(single).items():
        assert tensor.dtype in (torch.float32, torch.complex64), part
        torch.testing.assert_close(tensor.to(parts(double)[part].dtype), parts(double)[part], rtol=1e-6, atol=1e-6)
    y = single(x.float())
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.double(), double(x), rtol=1e-5, atol=1e-5)
    if case.linear:
        assert single.adjoint(y).dtype == single.pinv(y).dtype == single.initial_image(y).dtype == torch.float32
        torch.testing.assert_close(single.adjoint(y).double(), double.adjoint(y.double()), rtol=1e-5, atol=1e-5)


@every_linear_operator
def test_a_measurement_as_an_image_explains_itself(case, tmp_path):
    """`image` is y itself, or an x with A x = y where y has another shape."""
    x = random_images(2, 3, *case.sides(seed=12))
    operator = case.drawn(x, tmp_path)
    y = operator(x)
    image = operator.initial_image(y)
    if y.shape == x.shape:
        assert torch.equal(image, y)
    else:
        assert (norms(operator(image) - y) <= 1e-10 * norms(y)).all()
