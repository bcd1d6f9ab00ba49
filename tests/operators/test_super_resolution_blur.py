"""Circular blur with decimation, and operators whose AAᴴ is known, against sums and dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from operator_cases import dense, generators, measurement, norms, random_images, write_kernel
from torch import Tensor

from diffusion_priors.operators.linear import LinearOperator
from diffusion_priors.operators.resampling import SuperResolution, SuperResolutionBlur


def drawn(operator, x):
    return operator.draw(x, generators(range(len(x))))


def from_file(folder, kernel, factor):
    np.save(folder / "own.npy", kernel)
    return SuperResolutionBlur(factor, path=str(folder / "own.npy"))


@pytest.mark.parametrize(("factor", "sides"), [(2, (8, 14)), (3, (9, 12)), (4, (8, 20))])
def test_it_is_every_factor_th_value_of_the_circular_convolution(factor, sides, tmp_path):
    """y_i = Σ_j k_j x_{s i − (j − c)}, indices around the image, c = size // 2, for a kernel without symmetry."""
    x = random_images(2, 3, *sides)
    kernel = np.load(write_kernel(tmp_path, sides))
    y = drawn(SuperResolutionBlur(factor, path=str(tmp_path / "kernel.npy")), x)(x)
    rows, columns = (np.arange(0, side, factor) for side in sides)
    wanted = torch.zeros_like(y)
    for (i, j), value in np.ndenumerate(kernel):
        away = i - kernel.shape[0] // 2, j - kernel.shape[1] // 2
        wanted += value * x[..., (rows[:, None] - away[0]) % sides[0], (columns - away[1]) % sides[1]]
    torch.testing.assert_close(y, wanted, rtol=1e-12, atol=1e-13)


def test_the_gaussian_is_that_of_its_formula_and_keeps_grey():
    """A point becomes exp(−d²/2 std²), normalised on the taps within 3 std."""
    x = torch.zeros(1, 1, 24, 20, dtype=torch.float64)
    x[..., 8, 12] = 1.0
    y = drawn(SuperResolutionBlur(4, std=1.3), x)(x)[0, 0]
    taps = np.exp(-0.5 * (np.arange(-4, 5) / 1.3) ** 2)
    taps = dict(zip(range(-4, 5), taps / taps.sum(), strict=True))
    wanted = [[taps.get(4 * i - 8, 0.0) * taps.get(4 * j - 12, 0.0) for j in range(5)] for i in range(6)]
    np.testing.assert_allclose(y, wanted, atol=1e-14)
    grey = torch.full_like(x, 0.3)
    torch.testing.assert_close(
        drawn(SuperResolutionBlur(4), grey)(grey), torch.full((1, 1, 6, 5), 0.3, dtype=torch.float64), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("factor", [2, 4])
def test_a_box_for_a_kernel_gives_block_averages_of_the_shifted_image(factor, tmp_path):
    """The kernel's centre is factor // 2, and the first pixel is kept: block i ends factor // 2 pixels after s i."""
    x = random_images(2, 1, 4 * factor, 6 * factor)
    boxed = drawn(from_file(tmp_path, np.full((factor, factor), 1.0 / factor**2), factor), x)
    shift = factor - 1 - factor // 2
    averages = drawn(SuperResolution(factor), x)(x.roll((shift, shift), (-2, -1)))
    torch.testing.assert_close(boxed(x), averages, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(boxed.gram, torch.full_like(boxed.gram, 1.0 / factor**2), rtol=1e-12, atol=0)


def gram_inverses(matrix, y, weight):
    system = matrix @ matrix.T + weight * torch.eye(len(matrix), dtype=matrix.dtype)
    return torch.linalg.pinv(system, rtol=1e-10, hermitian=True) @ y


@pytest.mark.parametrize("weight", [0.0, 1e-3, 0.7])
@pytest.mark.parametrize("sides", [(12, 16), (12, 20)])
def test_the_gram_inverse_is_that_of_the_matrix(sides, weight, tmp_path):
    """(AAᵀ + w I)⁻¹, and the pseudo-inverse at w = 0, for a Gaussian and for a kernel file."""
    x = random_images(1, 1, *sides)
    write_kernel(tmp_path, sides)
    for operator in (SuperResolutionBlur(4, std=1.1), SuperResolutionBlur(2, path=str(tmp_path / "kernel.npy"))):
        matrix, y = dense(drawn(operator, x)), operator(random_images(*x.shape, seed=2)) + 0.3
        wanted = gram_inverses(matrix, y.flatten(), weight)
        torch.testing.assert_close(operator.gram_inverse(y, weight).flatten(), wanted, rtol=1e-8, atol=1e-9)


def test_a_kernel_without_symmetry_has_its_adjoint_and_its_inverses(tmp_path):
    """Aᵀ, A⁺, (AᵀA + w I)⁻¹Aᵀ and (AᵀA + w I)⁻¹ of the dense matrix."""
    x, w = random_images(1, 1, 8, 12), 0.2
    write_kernel(tmp_path, (8, 12))
    operator = drawn(SuperResolutionBlur(2, path=str(tmp_path / "kernel.npy")), x)
    matrix, y = dense(operator), random_images(1, 1, 4, 6, seed=3)
    system = matrix.T @ matrix + w * torch.eye(96, dtype=torch.float64)
    for found, wanted in (
        (operator.adjoint(y), matrix.T @ y.flatten()),
        (operator.pinv(y), torch.linalg.pinv(matrix) @ y.flatten()),
        (operator.tikhonov(y, w), torch.linalg.solve(system, matrix.T @ y.flatten())),
        (operator.solve(x, w), torch.linalg.solve(system, x.flatten())),
    ):
        torch.testing.assert_close(found.flatten(), wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("least", "kept"), [(1e-3, True), (1e-7, False)])
def test_singular_values_below_the_cutoff_count_as_not_measured(least, kept, tmp_path):
    """A kernel along the rows whose response is `least` at the two frequencies that fold onto the highest one of y."""
    response = np.array([1.0, 0.8, least, 0.5, 0.3, 0.5, least, 0.8])
    kernel = np.fft.fftshift(np.fft.ifft(response).real)[None]
    x = random_images(1, 1, 8, 8)
    operator = drawn(from_file(tmp_path, kernel, 2), x)
    matrix, y = dense(operator), random_images(1, 1, 4, 4, seed=3)
    assert (operator.gram > 0.0).all() == kept
    wanted = torch.linalg.pinv(matrix, rtol=1e-5) @ y.flatten()
    torch.testing.assert_close(operator.pinv(y).flatten(), wanted, rtol=1e-7, atol=1e-8)


def test_the_closed_form_holds_in_single_precision():
    """At a weight far below the squares of the singular values and at one above them."""
    x = random_images(2, 3, 64, 64)
    double, single = drawn(SuperResolutionBlur(), x), drawn(SuperResolutionBlur(), x.float())
    y = double(x)
    for weight in (0.0, 1e-6, 1.0):
        found, wanted = single.tikhonov(y.float(), weight).double(), double.tikhonov(y, weight)
        assert (norms(found - wanted) <= 1e-5 * norms(wanted)).all()


class Grey(LinearOperator):
    """y = the mean of three channels: AAᴴ = I/3."""

    has_gram_inverse = True

    def forward(self, x0: Tensor) -> Tensor:
        return x0.mean(1, keepdim=True)

    def gram_inverse(self, y: Tensor, weight: Tensor | float) -> Tensor:
        return y / (1.0 / 3.0 + weight)


def test_rows_that_are_orthogonal_and_of_one_length_need_one_division():
    """pinv, tikhonov, solve and the proximal step against dense algebra, each image with its own weight."""
    z = random_images(2, 3, 4, 5)
    operator, weight = drawn(Grey(), z), torch.tensor([0.02, 3.0], dtype=torch.float64).view(2, 1, 1, 1)
    y, matrix = random_images(2, 1, 4, 5, seed=1), dense(drawn(Grey(), z), channels=3)
    drawn(operator, z)
    torch.testing.assert_close(operator.pinv(y).flatten(1), y.flatten(1) @ torch.linalg.pinv(matrix).T, rtol=1e-11, atol=1e-12)
    near = measurement(operator, y).prox(z, weight)
    for b, w in enumerate(weight.flatten()):
        system = matrix.T @ matrix + w * torch.eye(60, dtype=torch.float64)
        seen = y[b].flatten() @ matrix
        for found, right in (
            (operator.tikhonov(y, weight), seen),
            (operator.solve(z, weight), z[b].flatten()),
            (near, seen + w * z[b].flatten()),
        ):
            torch.testing.assert_close(found[b].flatten(), torch.linalg.solve(system, right), rtol=1e-10, atol=1e-11)


def test_an_operator_without_a_gram_inverse_says_so():
    with pytest.raises(NotImplementedError, match="LinearOperator has no closed form"):
        LinearOperator().gram_inverse(torch.zeros(1), 0.1)


def test_values_out_of_bounds_are_refused(tmp_path):
    x = random_images(1, 1, 16, 18)
    for make, message in (
        (lambda: SuperResolutionBlur(1), r"at least 2, got 1; set operator\.factor"),
        (lambda: SuperResolutionBlur(std=0.0), r"got 0\.0; set operator\.std"),
        (lambda: SuperResolutionBlur(path=str(tmp_path / "none.npy")), r"cannot read the kernel .*set operator\.path"),
        (lambda: drawn(SuperResolutionBlur(4), x), r"side of 18 pixels is no multiple of the factor 4"),
        (lambda: drawn(SuperResolutionBlur(2, std=3.0), x), "a 19 x 19 kernel is larger than the 16 x 18 image"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
