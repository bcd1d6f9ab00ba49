"""Conjugate gradients against dense algebra, real and complex, image by image."""

from __future__ import annotations

import pytest
import torch
from operator_cases import norms, random_images

from diffusion_priors.operators.krylov import cg, cgls

SIDE, TOLERANCE = 24, 1e-8


def matrices(count: int, dtype: torch.dtype, least: float = 0.3) -> torch.Tensor:
    """(count, SIDE, SIDE) with singular values from `least` to 2."""
    entries = random_images(count, SIDE, SIDE, 2)
    left, _, right = torch.linalg.svd(torch.view_as_complex(entries).to(dtype) if dtype.is_complex else entries[..., 0])
    return left @ torch.diag(torch.linspace(least, 2.0, SIDE, dtype=torch.float64)).to(dtype) @ right


def vectors(count: int, dtype: torch.dtype, seed: int = 1) -> torch.Tensor:
    entries = random_images(count, SIDE, 2, seed=seed)
    return torch.view_as_complex(entries) if dtype.is_complex else entries[..., 0]


def times(matrix: torch.Tensor):
    return lambda x: torch.einsum("bij,bj->bi", matrix, x)


every_type = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)


@every_type
def test_conjugate_gradients_solve_every_image(dtype):
    """‖x − M⁻¹b‖ ≤ tolerance ‖b‖/λ_min; a start at the solution is returned as it is."""
    a, b = matrices(3, dtype), vectors(3, dtype)
    m = a.mH @ a
    expected = torch.linalg.solve(m, b)
    x = cg(times(m), b, TOLERANCE, 200)
    assert (norms(x - expected) <= TOLERANCE * norms(b) / 0.3**2).all()
    calls = []
    again = cg(lambda x: calls.append(1) or times(m)(x), b, TOLERANCE, 200, start=expected)
    assert torch.equal(again, expected) and len(calls) == 1


@every_type
def test_an_image_stops_by_itself(dtype):
    """An easy image, a hard one that is very faint, and a black one give what each gives alone."""
    stack = torch.stack([torch.eye(SIDE, dtype=dtype), *matrices(2, dtype)])
    b = vectors(3, dtype) * torch.tensor([1.0, 1e-9, 0.0]).view(3, 1)
    for solve in (lambda m, b: cg(times(m.mH @ m), b, 1e-6, 60), lambda m, b: cgls(times(m), times(m.mH), b, 0.0, 1e-6, 60)):
        x = solve(stack, b)
        for i in range(3):
            alone = solve(stack[i : i + 1], b[i : i + 1])
            assert norms(x[i : i + 1] - alone) <= 1e-9 * norms(alone)
        assert (x[2] == 0.0).all() and x.isfinite().all()


@every_type
def test_regularised_least_squares_is_that_of_the_matrix(dtype):
    """(AᴴA + w I)⁻¹Aᴴy with another w for each image, 0 among them."""
    a, y = matrices(3, dtype), vectors(3, dtype)
    weight = torch.tensor([0.0, 0.1, 4.0], dtype=torch.float64).view(3, 1)
    x = cgls(times(a), times(a.mH), y, weight, TOLERANCE, 200)
    seen = torch.einsum("bji,bj->bi", a.conj(), y)
    expected = torch.linalg.solve(a.mH @ a + weight[..., None] * torch.eye(SIDE, dtype=dtype), seen)
    assert (norms(x - expected) <= TOLERANCE * norms(seen) / 0.3**2).all()


def test_iterations_are_counted():
    """An iteration applies M once, and there are no more than `iterations`."""
    m = matrices(1, torch.float64, least=1e-3)
    calls = []
    cg(lambda x: calls.append(1) or times(m.mH @ m)(x), vectors(1, torch.float64), 1e-12, 7)
    assert len(calls) == 7


def test_conjugate_gradients_stop_at_a_direction_without_positive_curvature():
    """M is indefinite, as that of a network may be. The image keeps the x that it had; the other image is solved beside it."""
    m = torch.stack([torch.diag(torch.tensor([2.0, -1.0, 1.0])), torch.eye(3) * 2.0]).double()
    b = torch.tensor([[0.1, 1.0, 0.1], [1.0, 2.0, 3.0]], dtype=torch.float64)
    x = cg(times(m), b, TOLERANCE, 50)
    assert torch.equal(x[0], torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(x[1], b[1] / 2.0)
