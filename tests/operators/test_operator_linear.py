"""What holds for every operator of conf/operator at every boundary: adjoint, inverses, draws, batches."""

from __future__ import annotations

import pytest
import torch
from operator_cases import (
    ALL,
    LINEAR,
    by_conjugate_gradients,
    components,
    dense,
    generators,
    inner,
    largest_singular_value,
    measurement,
    norms,
    random_images,
    random_like,
    residual_bound,
    without_rounding,
)
from torch import Tensor, nn

every_operator = pytest.mark.parametrize("case", ALL, ids=str)
every_linear_operator = pytest.mark.parametrize("case", LINEAR, ids=str)
BATCHES = [(1, 1), (1, 3), (3, 1), (3, 3)]
"""(images, channels)."""


NO_IMAGE = {
    "coded_diffraction",
    "fourier_random",
    "mri",
    "mri_multicoil",
    "phase_retrieval",
    "random_matrix",
    "tomography",
    "walsh_hadamard",
}


def drawn_tensors(operator: nn.Module) -> dict[str, Tensor]:
    """What a draw fixed: the mask, the kernel, the matrices."""
    return dict(operator.named_buffers())


@every_linear_operator
def test_forward_is_linear_and_the_adjoint_is_its_adjoint(case, tmp_path):
    """A(a x + b z) = a A x + b A z and Re⟨A x, y⟩ = ⟨x, Aᴴ y⟩, for every batch."""
    for images, channels in BATCHES:
        shape = (images, channels, *case.sides(seed=images + 10 * channels))
        x, z = random_images(*shape), random_images(*shape, seed=1)
        operator = case.drawn(x, tmp_path)
        torch.testing.assert_close(operator(1.7 * x - 0.6 * z), 1.7 * operator(x) - 0.6 * operator(z), rtol=1e-12, atol=1e-12)
        y = random_like(operator(x), seed=1)
        left, right = inner(operator(x), y), inner(x, operator.adjoint(y))
        assert ((left - right).abs() <= 1e-10 * norms(operator(x)) * norms(y)).all()


@every_linear_operator
def test_the_pseudoinverse_explains_the_measurement(case, tmp_path):
    """A A⁺ A x = A x, within the operator's own limits."""
    x = random_images(2, 3, *case.sides(seed=3))
    operator = case.drawn(x, tmp_path)
    y = operator(x)
    assert (norms(operator(operator.pinv(y)) - y) <= residual_bound(operator, x)).all()


@every_linear_operator
def test_the_pseudoinverse_is_the_least_squares_solution_of_least_norm(case, tmp_path):
    """Aᴴ(y − A A⁺y) = 0 for any y, and A⁺y is orthogonal to the null space of A.

    The first is tested for A⁺ in closed form: conjugate gradients meet their tolerance where the condition allows, which
    is tested in test_operator_base.py and test_operator_blur.py.
    """
    like = random_images(1, 1, *case.sides(seed=5, most=20))
    operator = case.drawn(like, tmp_path)
    y = random_like(operator(like), seed=2)
    x = operator.pinv(y)
    _, values, right = torch.linalg.svd(dense(operator))
    if not by_conjugate_gradients(operator):
        bound = (getattr(operator, "cutoff", 0.0) + 1e-12) * values[0] * norms(y)
        assert (norms(operator.adjoint(y - operator(x))) <= bound).all()
    null = right[int((values > 1e-12 * values[0]).sum()) :]
    assert torch.linalg.vector_norm(null @ x.flatten()) <= 1e-9 * norms(x)


@every_linear_operator
def test_the_pseudoinverse_in_single_precision_agrees_with_double(case, tmp_path):
    """Singular values below `cutoff` count as 0, so rounding grows by no more than 1/(cutoff ‖A‖).

    By conjugate gradients, both explain y within their tolerance.
    """
    x = random_images(1, 1, *case.sides(seed=6))
    double, single = case.drawn(x, tmp_path), case.drawn(x.float(), tmp_path)
    y = double(x)
    found = single.pinv(single(x.float())).double()
    if by_conjugate_gradients(double):
        assert norms(double(found) - y) <= residual_bound(double, x)
    else:
        growth = 1.0 / (getattr(double, "cutoff", 1.0) * largest_singular_value(double, x))
        assert norms(found - double.pinv(y)) <= 8 * torch.finfo(torch.float32).eps * growth * norms(y)


@every_linear_operator
def test_regularised_inverses_are_those_of_the_matrix(case, tmp_path):
    """(AᴴA + w I)⁻¹b and (AᴴA + w I)⁻¹Aᴴy against dense algebra, each image with its own w.

    In closed form dropped singular values s ≤ cutoff ‖A‖ change the first by s²/w and the second by s/w relative to b and y;
    conjugate gradients leave a residual of cg_tolerance, which (AᴴA + w I)⁻¹ multiplies by 1/w at most.
    """
    like = random_images(2, 1, *case.sides(seed=5, most=20))
    operator, weight = case.drawn(like, tmp_path), torch.tensor([0.02, 3.0], dtype=torch.float64).view(2, 1, 1, 1)
    b, y = random_images(*like.shape, seed=3), random_like(operator(like), seed=2)
    solved, damped = operator.solve(b, weight), operator.tikhonov(y, weight)
    for i, w in enumerate(weight.flatten()):
        matrix = dense(case.drawn(like[i : i + 1], tmp_path, ids=(i,)))
        regular = matrix.T @ matrix + w * torch.eye(matrix.shape[1], dtype=torch.float64)
        seen = components(y)[i] @ matrix
        if by_conjugate_gradients(operator):
            bounds = [operator.cg_tolerance / w * torch.linalg.vector_norm(right) for right in (b[i], seen)]
        else:
            s = getattr(operator, "cutoff", 0.0) * largest_singular_value(operator, like)[i]
            bounds = [s**2 / w**2 * norms(b)[i] + 1e-10, s / w * norms(y)[i] + 1e-10]
        for found, right, bound in zip((solved, damped), (b[i].flatten(), seen), bounds, strict=True):
            assert torch.linalg.vector_norm(found[i].flatten() - torch.linalg.solve(regular, right)) <= bound


@every_linear_operator
def test_the_proximal_step_is_the_minimiser(case, tmp_path):
    """x = prox(z, w) has Aᴴ(A x − y) + w (x − z) = 0; w = 0 gives the projection, which explains y and keeps z otherwise."""
    z = random_images(2, 2, *case.sides(seed=5, most=20))
    operator = case.drawn(z, tmp_path)
    found, weight = measurement(operator, operator(random_images(*z.shape, seed=4))), 0.1
    x = found.prox(z, torch.full((2, 1, 1, 1), weight, dtype=torch.float64))
    gradient = found.squared_residual_gradient(x) / 2.0 + weight * (x - z)
    start = norms(found.squared_residual_gradient(z) / 2.0)
    limit = operator.cg_tolerance if by_conjugate_gradients(operator) else getattr(operator, "cutoff", 0.0) + 1e-12
    assert (norms(gradient) <= 2.0 * limit * start).all()
    operator.cg_iterations = 20
    torch.testing.assert_close(found.prox(z, 0.0), z + operator.pinv(found.y - operator(z)), rtol=1e-12, atol=1e-12)


@every_operator
def test_forward_has_the_gradient_autograd_gives(case, tmp_path, monkeypatch):
    """Of a rounded y: that of `forward` without the rounding, where nothing is clipped."""
    x = (0.3 * random_images(1, 1, *case.sides(seed=7, most=20))).requires_grad_()
    operator = case.drawn(x, tmp_path)
    y, pull_back = operator.linearise(x)
    if operator.rounds:
        gradient = pull_back(y)
        without_rounding(monkeypatch)
        assert not torch.equal(operator(x), y)
        torch.testing.assert_close(gradient, operator.linearise(x)[1](y), rtol=1e-11, atol=1e-12)
    assert torch.autograd.gradcheck(operator, x, fast_mode=True)


@every_operator
def test_an_image_in_a_batch_is_treated_as_if_alone(case, tmp_path):
    """Masks and kernels are equal; y, gradients and Aᴴy are equal to rounding."""
    x = random_images(3, 3, *case.sides(seed=8))
    together = case.drawn(x, tmp_path, ids=(4, 7, 9))
    y = together(x)
    gradient = measurement(together, y).squared_residual_gradient(0.5 * x)
    for b, name in enumerate((4, 7, 9)):
        image, own = x[b : b + 1], y[b : b + 1]
        alone = case.drawn(image, tmp_path, ids=(name,))
        for part, tensor in drawn_tensors(together).items():
            row = tensor[b : b + 1] if tensor.ndim == 4 and len(tensor) == 3 else tensor
            torch.testing.assert_close(row, drawn_tensors(alone)[part], rtol=0, atol=1e-14 if tensor.is_complex() else 0)
        torch.testing.assert_close(alone(image), own, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(alone.support(own) * own, own, rtol=0, atol=0)
        own_gradient = measurement(alone, own).squared_residual_gradient(0.5 * image)
        torch.testing.assert_close(own_gradient, gradient[b : b + 1], rtol=1e-10, atol=1e-12)
        if case.linear:
            torch.testing.assert_close(alone.adjoint(own), together.adjoint(y)[b : b + 1], rtol=1e-12, atol=1e-13)


@every_operator
def test_a_repeated_operator_treats_each_copy_as_the_image(case, tmp_path):
    """The copies of an image stand next to each other and share its mask or kernel; the original is unchanged."""
    x, k = random_images(3, 2, *case.sides(seed=8)), 4
    operator = case.drawn(x, tmp_path, ids=(4, 7, 9))
    y, drawn = operator(x), drawn_tensors(operator)
    copies = random_images(3 * k, *x.shape[1:], seed=2)
    repeated = operator.repeat(k)
    assert repeated.image_shape == copies.shape
    for j in range(k):
        torch.testing.assert_close(repeated(copies)[j::k], operator(copies[j::k]), rtol=1e-12, atol=1e-13)
        if case.linear:
            rows = repeated(copies)
            torch.testing.assert_close(repeated.adjoint(rows)[j::k], operator.adjoint(rows[j::k]), rtol=1e-12, atol=1e-12)
        if operator.has_spectrum:
            torch.testing.assert_close(repeated.pinv(rows)[j::k], operator.pinv(rows[j::k]), rtol=1e-9, atol=1e-9)
    found = measurement(operator, y).repeat(k)
    torch.testing.assert_close(found.norm(copies)[1::k], measurement(operator, y).norm(copies[1::k]), rtol=1e-12, atol=1e-12)
    assert torch.equal(operator(x), y)
    assert all(tensor is drawn[name] for name, tensor in drawn_tensors(operator).items())


@every_linear_operator
def test_the_pseudoinverse_of_an_image_does_not_depend_on_the_batch(case, tmp_path):
    """To rounding; iterations of conjugate gradients agree one by one, here the first ten: later ones amplify rounding."""
    x = random_images(2, 1, *case.sides(seed=8, most=20))
    together, alone = case.drawn(x, tmp_path, ids=(4, 7)), case.drawn(x[1:], tmp_path, ids=(7,))
    together.cg_iterations = alone.cg_iterations = 10
    y = together(x)
    expected = alone.pinv(y[1:])
    assert norms(together.pinv(y)[1:] - expected) <= 1e-10 * norms(expected)


@every_operator
def test_a_draw_depends_on_the_image_and_the_seed_alone(case, tmp_path):
    """It depends neither on earlier draws nor on the order of the batch."""
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
    """With another image or seed, a random operator gives another y of the same x; other operators give the same y."""
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
    for part, tensor in drawn_tensors(single).items():
        assert tensor.dtype in (torch.float32, torch.complex64), part
        torch.testing.assert_close(tensor.to(drawn_tensors(double)[part].dtype), drawn_tensors(double)[part], rtol=1e-6, atol=1e-6)
    y = single(x.float())
    assert y.real.dtype == torch.float32
    torch.testing.assert_close(y.to(double(x).dtype), double(x), rtol=1e-5, atol=1e-5)
    assert measurement(single, y).norm_gradient(torch.zeros_like(x).float()).dtype == torch.float32
    single.cg_iterations = 2
    if case.linear:
        assert single.adjoint(y).dtype == single.pinv(y).dtype == single.initial_image(y).dtype == torch.float32
        torch.testing.assert_close(single.adjoint(y).double(), double.adjoint(y.to(double(x).dtype)), rtol=1e-5, atol=1e-5)


@every_operator
def test_a_measurement_as_an_image(case, tmp_path):
    """`as_image` is y or None. `initial_image` has the shape of x0 and explains y, or is None."""
    x = random_images(2, 3, *case.sides(seed=12))
    operator = case.drawn(x, tmp_path)
    y = operator(x)
    shown, initial = operator.as_image(y), operator.initial_image(y)
    assert shown is None or (torch.equal(shown, y) and not y.is_complex() and y.shape[1] in (1, 3))
    if case.name in NO_IMAGE:
        assert shown is None
    if operator.has_image_shape(y) or case.name.startswith("super_resolution"):
        assert shown is not None
    assert (shown is None) == (operator.unit != "[-1, 1]")
    if operator.linear or case.name in ("phase_retrieval", "coded_diffraction"):
        assert (initial is None) == (not operator.linear)
    if initial is not None:
        assert initial.shape == x.shape
        bound = residual_bound(operator, x) if operator.linear else 1e-10 * norms(y)
        explains = torch.equal(initial, y) or (norms(operator(initial) - y) <= bound).all()
        assert explains
