"""Blur against independent references, and the law of random camera shakes."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from operator_cases import BOUNDARIES, dense, generators, largest_singular_value, norms, random_images
from PIL import Image
from scipy import ndimage
from torch import Tensor

from diffusion_priors.images.fit import Crop, Exact, Stretch, resize
from diffusion_priors.operators.blur import DeblurGaussian, DeblurKernel, DeblurMotion, splat

SCIPY = {"circular": "wrap", "reflect": "mirror", "zero": "constant"}
NUMPY = {"circular": "wrap", "reflect": "reflect", "zero": "constant"}

every_boundary = pytest.mark.parametrize("boundary", BOUNDARIES)


def drawn(operator, x: Tensor, seed: int = 0):
    return operator.draw(x, generators(range(len(x)), seed))


def from_array(kernel: np.ndarray, folder, boundary: str = "reflect") -> DeblurKernel:
    np.save(folder / "kernel.npy", kernel)
    return DeblurKernel(str(folder / "kernel.npy"), boundary)


def gaussian(size: int, std: float) -> np.ndarray:
    row, column = np.mgrid[:size, :size] - size // 2
    taps = np.exp(-(row**2 + column**2) / (2.0 * std**2))
    return taps / taps.sum()


def convolved(x: np.ndarray, kernel: np.ndarray, boundary: str) -> np.ndarray:
    """y_i = Σ_j k_j x_{i−(j−c)}, c = size // 2, term by term."""
    (h, w), (height, width) = kernel.shape, x.shape
    continued = np.pad(x, ((h, h), (w, w)), mode=NUMPY[boundary])
    y = np.zeros_like(x)
    for j in range(h):
        for k in range(w):
            top, left = h - (j - h // 2), w - (k - w // 2)
            y += kernel[j, k] * continued[top : top + height, left : left + width]
    return y


@every_boundary
@pytest.mark.parametrize(("size", "std"), [(1, 1.0), (5, 0.7), (9, 1.5), (15, 3.0), (17, 40.0)])
def test_gaussian_blur_is_the_truncated_gaussian(size, std, boundary):
    x = random_images(2, 3, 17, 22)
    weights = gaussian(size, std)
    expected = [[ndimage.correlate(channel, weights, mode=SCIPY[boundary]) for channel in image] for image in x.numpy()]
    torch.testing.assert_close(drawn(DeblurGaussian(size, std, boundary), x)(x), torch.tensor(np.array(expected)), rtol=1e-12, atol=1e-13)


@every_boundary
def test_gaussian_blur_is_the_convolution_with_its_kernel(boundary, tmp_path):
    """Matrices and FFT give the same A and, for a well-conditioned kernel, the same A⁺."""
    x = random_images(2, 3, 17, 22)
    separable, convolution = drawn(DeblurGaussian(5, 0.6, boundary), x), drawn(from_array(gaussian(5, 0.6), tmp_path, boundary), x)
    torch.testing.assert_close(separable(x), convolution(x), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(separable.adjoint(x), convolution.adjoint(x), rtol=1e-12, atol=1e-13)
    smallest = torch.linalg.svdvals(dense(drawn(from_array(gaussian(5, 0.6), tmp_path, boundary), x[:1])))[-1]
    bound = 1e-11 if boundary == "circular" else convolution.cg_tolerance * norms(x) / smallest**2
    assert (norms(separable.pinv(x) - convolution.pinv(x)) <= bound).all()


@every_boundary
def test_the_blur_of_dps_is_undone_in_single_precision(boundary):
    """‖A A⁺A x − A x‖ ≤ c (2 + c) ‖A‖ ‖x‖ and rounding of A⁺ grows by 1/c at most, c the cutoff; states are float32."""
    x = random_images(1, 1, 64, 72)
    double, single = drawn(DeblurGaussian(61, 3.0, boundary), x), drawn(DeblurGaussian(61, 3.0, boundary), x.float())
    y, c, eps = double(x), double.cutoff, torch.finfo(torch.float32).eps
    found, norm = single.pinv(y.float()).double(), largest_singular_value(double, x)
    assert norms(found - double.pinv(y)) <= 8 * eps / (c * norm) * norms(y)
    assert norms(single(found.float()).double() - y) <= c * (2.0 + c) * norm * norms(x) + 8 * eps * norms(y)


@every_boundary
@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (4, 5), (2, 6), (5, 4), (1, 4), (11, 14)])
def test_a_kernel_is_convolved_as_the_formula_says(shape, boundary, tmp_path):
    x = random_images(2, 3, 11, 14)
    kernel = np.random.default_rng(1).normal(size=shape) + 0.3
    operator = drawn(from_array(kernel, tmp_path, boundary), x)
    expected = [[convolved(channel, kernel, boundary) for channel in image] for image in x.numpy()]
    torch.testing.assert_close(operator(x), torch.tensor(np.array(expected)), rtol=1e-11, atol=1e-12)


@every_boundary
def test_a_kernel_of_odd_sides_is_convolved_as_scipy_does(boundary, tmp_path):
    x = random_images(1, 1, 11, 14)
    kernel = np.random.default_rng(2).uniform(size=(3, 5))
    expected = ndimage.convolve(x[0, 0].numpy(), kernel, mode=SCIPY[boundary])
    torch.testing.assert_close(drawn(from_array(kernel, tmp_path, boundary), x)(x)[0, 0], torch.tensor(expected), rtol=1e-12, atol=1e-13)


@every_boundary
@pytest.mark.parametrize("shape", [(3, 3), (4, 5)])
def test_the_pseudoinverse_of_a_convolution_is_that_of_its_matrix(shape, boundary, tmp_path):
    """The kernel is 1 at its centre and small elsewhere: singular values lie in [½, 1½], so conjugate gradients are exact to 4 tol."""
    x = random_images(1, 1, 8, 11)
    kernel = np.random.default_rng(3).normal(size=shape)
    kernel[shape[0] // 2, shape[1] // 2] = 0.0
    kernel *= 0.25 / np.abs(kernel).sum()
    kernel[shape[0] // 2, shape[1] // 2] = 1.0
    operator = drawn(from_array(kernel, tmp_path, boundary), x)
    y = random_images(1, 1, 8, 11, seed=1)
    expected = (torch.linalg.pinv(dense(operator)) @ y.flatten()).view_as(y)
    bound = 1e-12 if boundary == "circular" else 4.0 * operator.cg_tolerance
    assert norms(operator.pinv(y) - expected) <= bound * norms(operator.adjoint(y))


def test_the_pseudoinverse_of_a_singular_convolution_is_that_of_its_matrix(tmp_path):
    """A mean over 2 × 3 pixels of a periodic 8 × 9 image has zeros in its spectrum."""
    x = random_images(1, 1, 8, 9)
    operator = drawn(from_array(np.full((2, 3), 1.0 / 6.0), tmp_path, "circular"), x)
    matrix = dense(operator)
    assert torch.linalg.matrix_rank(matrix, rtol=1e-10) < matrix.shape[0]
    expected = torch.linalg.pinv(matrix, rtol=1e-10) @ x.flatten()
    torch.testing.assert_close(operator.pinv(x).flatten(), expected, rtol=1e-9, atol=1e-11)


def test_an_array_is_taken_as_it_is(tmp_path):
    """A kernel that does not sum to 1 scales the brightness; integers are accepted."""
    x = torch.ones(1, 1, 6, 7, dtype=torch.float64)
    kernel = np.array([[1, 2], [3, -1]])
    torch.testing.assert_close(drawn(from_array(kernel, tmp_path), x)(x), 5.0 * x, rtol=1e-13, atol=0)


@pytest.mark.parametrize("depth", [8, 16])
def test_an_image_is_scaled_to_sum_one(depth, tmp_path):
    """At either bit depth the kernel is proportional to the grey levels, and the image's rows are the kernel's."""
    grey = np.random.default_rng(4).integers(0, 2**depth, size=(3, 5)).astype(f"uint{depth}")
    Image.fromarray(grey).save(tmp_path / "kernel.png")
    x = torch.zeros(1, 1, 9, 11, dtype=torch.float64)
    x[0, 0, 4, 5] = 1.0
    y = drawn(DeblurKernel(str(tmp_path / "kernel.png")), x)(x)
    torch.testing.assert_close(y[0, 0, 3:6, 3:8], torch.tensor(grey / grey.sum()), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("size", [0, -3, 2, 8])
def test_a_gaussian_of_even_size_is_refused(size):
    with pytest.raises(ValueError, match=rf"size={size}; set operator\.size"):
        DeblurGaussian(size=size)


@pytest.mark.parametrize("std", [0.0, -1.5, float("nan")])
def test_a_gaussian_of_no_positive_width_is_refused(std):
    with pytest.raises(ValueError, match=rf"{std}; set operator\.std"):
        DeblurGaussian(std=std)


@pytest.mark.parametrize("sides", [(8, 20), (20, 8)])
def test_a_kernel_larger_than_the_image_is_refused(sides, tmp_path):
    x = random_images(1, 1, *sides)
    with pytest.raises(ValueError, match=r"9 taps is larger than an image side of 8 pixels; set operator\.size"):
        drawn(DeblurGaussian(9), x)
    with pytest.raises(ValueError, match=rf"9 x 9 kernel is larger than the {sides[0]} x {sides[1]} image"):
        drawn(DeblurMotion(9), x)
    with pytest.raises(ValueError, match=rf"9 x 9 kernel is larger than the {sides[0]} x {sides[1]} image"):
        drawn(from_array(np.ones((9, 9)), tmp_path), x)


@pytest.mark.parametrize(
    ("kernel", "seen"),
    [
        (np.array([[1.0, np.nan, np.inf]]), "2 entries that are not finite"),
        (np.array([[1.0, -1.0]]), "sums to zero (0)"),
        (np.zeros((3, 3)), "sums to zero (0)"),
        (np.ones(5), "(5,)"),
        (np.ones((1, 3, 3)), "(1, 3, 3)"),
        (np.ones((0, 3)), "(0, 3)"),
    ],
    ids=["not finite", "sums to zero", "black", "a row", "a stack", "empty"],
)
def test_an_invalid_kernel_is_refused(kernel, seen, tmp_path):
    with pytest.raises(ValueError, match=r"kernel\.npy .*" + re.escape(seen)):
        from_array(kernel, tmp_path)


def test_a_complex_kernel_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"kernel\.npy"):
        from_array(np.array([[1.0 + 2.0j, 0.5]]), tmp_path)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scale", [1e-320, 1e-46, 1e-30, 1e-10, 1e-5, 1e4, 1e30, 1e305])
def test_a_kernel_that_erases_the_image_or_leaves_its_range_is_refused(scale, dtype, tmp_path):
    """In float32 its entries may be 0 or infinite though they are not in the file."""
    with np.errstate(over="ignore"):
        kernel = (scale * np.array([[1.0, 2.0], [3.0, 4.0]])).astype(dtype)
    with pytest.raises(ValueError, match=r"kernel\.npy (sums to|has 4 entries that are not finite)"):
        from_array(kernel, tmp_path)


@pytest.mark.parametrize("scale", [1e-3, 0.5, 90.0])
def test_a_kernel_may_change_the_brightness(scale, tmp_path):
    x = random_images(1, 1, 5, 6)
    kernel = np.array([[1.0, 2.0], [3.0, 4.0]])
    found = drawn(from_array(scale * kernel, tmp_path), x)(x)
    torch.testing.assert_close(found, scale * drawn(from_array(kernel, tmp_path), x)(x), rtol=1e-12, atol=1e-13)


def test_a_kernel_that_turns_bright_into_dark_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"negative sum \(-1\)"):
        from_array(np.array([[-0.5, -0.5]]), tmp_path)


@pytest.mark.parametrize(
    "kernel",
    [np.ones((2, 2), dtype=complex), np.array([["a"]]), np.array([[None]]), np.zeros((2, 2), "datetime64[s]"), np.zeros(3, "i4,f8")],
    ids=["complex", "text", "objects", "dates", "records"],
)
def test_a_kernel_of_other_values_than_real_numbers_is_refused(kernel, tmp_path):
    np.save(tmp_path / "kernel.npy", kernel)
    with pytest.raises(ValueError, match="kernel") as refusal:
        DeblurKernel(str(tmp_path / "kernel.npy"))
    assert "\n" not in str(refusal.value)


def test_a_kernel_file_that_promises_more_than_it_holds_is_refused(tmp_path):
    """The array that its header describes has 8 TB."""
    with (tmp_path / "kernel.npy").open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)})
    with pytest.raises(ValueError, match=r"cannot read the kernel .*kernel\.npy"):
        DeblurKernel(str(tmp_path / "kernel.npy"))


def test_integers_and_truth_values_are_numbers(tmp_path):
    x = random_images(1, 1, 5, 6)
    expected = drawn(from_array(np.ones((2, 2)), tmp_path), x)(x)
    for dtype in (bool, np.int8, np.uint64, np.float16):
        torch.testing.assert_close(drawn(from_array(np.ones((2, 2), dtype), tmp_path), x)(x), expected)


# A kernel of the size of the photo


def of_file(kernel: np.ndarray, folder, fit, boundary: str = "reflect") -> DeblurKernel:
    operator = from_array(kernel, folder, boundary)
    operator.fit = fit
    return operator


def test_a_kernel_of_the_photo_blurs_the_small_image_as_it_blurs_the_photo(tmp_path):
    """Shrinking the blurred photo = blurring the shrunk photo, up to what shrinking loses of a smooth image."""
    size, photo = (20, 24), (200, 240)
    rows, columns = (2.0 * np.pi * index / side for index, side in zip(np.mgrid[: photo[0], : photo[1]], photo, strict=True))
    smooth = torch.from_numpy(0.2 * np.sin(2 * rows + columns) + 0.2 * np.cos(3 * columns - rows) + 0.5)[None, None]
    kernel = np.zeros(photo)
    kernel[80:121, 100:141] = gaussian(41, 12.0)
    operator = of_file(np.roll(kernel, (15, -9), (0, 1)), tmp_path, Crop(), "circular")

    def shrunk(x: Tensor) -> Tensor:
        return torch.from_numpy(resize(x[0].permute(1, 2, 0).numpy(), size)).permute(2, 0, 1)[None]

    expected = shrunk(drawn(operator, smooth)(smooth))
    found = drawn(operator, shrunk(smooth))(shrunk(smooth))
    assert (found - expected).abs().max() < 0.01 < 0.2 < (shrunk(smooth) - expected).abs().max()


@pytest.mark.parametrize("shape", [(41, 41), (40, 60), (17, 33)])
def test_a_kernel_of_the_photo_keeps_its_sum_and_its_centre(shape, tmp_path):
    x = random_images(1, 1, 16, 16)
    kernel = np.zeros(shape)
    kernel[shape[0] // 2, shape[1] // 2] = 2.5
    found = drawn(of_file(kernel, tmp_path, Stretch()), x).kernel[0, 0]
    assert found.sum().item() == pytest.approx(2.5) and found.shape[0] % 2 == found.shape[1] % 2 == 1
    torch.testing.assert_close(found, found.flip(0, 1), rtol=0, atol=1e-12)


def test_a_kernel_that_fits_the_images_is_theirs(tmp_path):
    x = random_images(1, 1, 16, 16)
    operator = of_file(gaussian(9, 1.0), tmp_path, Crop())
    assert operator.file_size((16, 16)) is None
    torch.testing.assert_close(drawn(operator, x).kernel[0, 0], torch.from_numpy(gaussian(9, 1.0)))
    assert of_file(np.ones((17, 3)), tmp_path, Crop()).file_size((16, 16)) == (17, 3)


def test_a_large_kernel_without_a_fit_or_with_an_exact_one_is_refused(tmp_path):
    x = random_images(1, 1, 16, 16)
    with pytest.raises(ValueError, match="a 17 x 3 kernel is larger than the 16 x 16 image"):
        drawn(of_file(np.ones((17, 3)), tmp_path, None), x)
    with pytest.raises(ValueError, match="is larger than the images: it is 17 x 3, wanted is 16 x 16"):
        drawn(of_file(np.ones((17, 3)), tmp_path, Exact()), x)


@pytest.mark.parametrize("name", ["kernel.npy", "kernel.png"])
@pytest.mark.parametrize("content", [None, b"", b"neither an array nor an image"], ids=["absent", "empty", "text"])
def test_a_kernel_that_cannot_be_read_is_refused(name, content, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"cannot read the kernel .*{re.escape(name)}.*operator\.path"):
        DeblurKernel(str(tmp_path / name))


@pytest.mark.parametrize("size", [-1, 0, 1, 4, 16])
def test_a_motion_kernel_of_even_or_small_size_is_refused(size):
    with pytest.raises(ValueError, match=rf"size={size}; set operator\.size"):
        DeblurMotion(size=size)


@pytest.mark.parametrize("intensity", [-0.1, 1.1, float("nan")])
def test_an_intensity_outside_0_and_1_is_refused(intensity):
    with pytest.raises(ValueError, match=rf"{intensity}; set operator\.intensity"):
        DeblurMotion(intensity=intensity)


def shakes(images: int, size: int, intensity: float, seed: int = 0) -> Tensor:
    """Kernels (B, size, size): the blur of a single bright pixel."""
    x = torch.zeros(images, 1, 2 * size, 2 * size + 1, dtype=torch.float64)
    x[..., size, size] = 1.0
    y = drawn(DeblurMotion(size, intensity, "zero"), x, seed)(x)[:, 0]
    reach = slice(size - size // 2, size + size // 2 + 1)
    torch.testing.assert_close(y.sum((1, 2)), y[:, reach, reach].sum((1, 2)), rtol=1e-12, atol=1e-12)
    return y[:, reach, reach]


def covariance(kernels: Tensor) -> Tensor:
    """(B, 2, 2), row and column, in pixels²."""
    places = torch.cartesian_prod(*[torch.arange(kernels.shape[-1], dtype=kernels.dtype)] * 2)
    weights = kernels.flatten(1)
    centred = places - (weights @ places)[:, None]
    return torch.einsum("bn,bni,bnj->bij", weights, centred, centred)


@pytest.mark.parametrize("size", [5, 15, 31])
@pytest.mark.parametrize("intensity", [0.0, 0.5, 1.0])
def test_a_motion_kernel_is_nonnegative_and_sums_to_one(size, intensity):
    kernels = shakes(16, size, intensity)
    assert (kernels >= -1e-14).all()
    torch.testing.assert_close(kernels.sum((1, 2)), torch.ones(16, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("intensity", "apart"), [(0.0, 1e-3), (0.5, 0.1), (1.0, 0.1)])
def test_every_image_has_its_own_motion_kernel(intensity, apart):
    """At intensity 0 a kernel is one angle, so two of eight may be similar."""
    kernels = shakes(8, 15, intensity).flatten(1)
    distances = torch.cdist(kernels, kernels) / norms(kernels)[:, None]
    assert (distances[~torch.eye(8, dtype=torch.bool)] > apart).all()


@pytest.mark.parametrize("size", [9, 15, 31])
def test_without_intensity_the_path_is_a_straight_line_of_full_length(size):
    """At intensity 0 the path is a segment of length L = size − 3, of variance L²/12 along itself, up to N²/(N − 1)² for N points.

    Splatting adds f (1 − f) ≤ ¼ pixels² to either axis, f a point's fractional place.
    """
    n, along = DeblurMotion.points, (size - 3) ** 2 / 12.0
    across, major = torch.linalg.eigvalsh(covariance(shakes(32, size, 0.0))).unbind(1)
    assert (across <= 0.25 + 1e-9).all()
    assert (major >= along).all() and (major <= along * (n / (n - 1)) ** 2 + 0.25).all()


def test_straight_paths_have_every_direction():
    """cos 2θ and sin 2θ have mean 0 and variance ½, within five standard errors."""
    n = 800
    spread = covariance(shakes(n, 15, 0.0))
    doubled = torch.stack([spread[:, 0, 0] - spread[:, 1, 1], 2.0 * spread[:, 0, 1]], dim=1)
    doubled = doubled / torch.linalg.vector_norm(doubled, dim=1, keepdim=True)
    assert (doubled.mean(0).abs() <= 5.0 * (0.5 / n) ** 0.5).all()


def test_more_intensity_makes_paths_less_straight():
    """The share of the variance across the path grows with the intensity, and the path still covers some pixels."""
    shares = []
    for intensity in (0.0, 0.25, 0.5, 1.0):
        kernels = shakes(64, 25, intensity)
        values = torch.linalg.eigvalsh(covariance(kernels))
        shares.append((values[:, 0] / values.sum(1)).mean())
        assert ((kernels > 1e-3).sum((1, 2)) > 8).all()
    assert shares == sorted(shares) and shares[-1] > 10.0 * shares[0]


def test_splatting_keeps_the_position_of_every_point():
    """The kernel's mean is the path's, and each point adds f (1 − f) to the variance of either axis."""
    path = 1.0 + 4.0 * (random_images(3, 50, 2) + 1.0) / 2.0
    kernels = splat(path, 7)[:, 0]
    places = torch.arange(7, dtype=torch.float64)
    mean = torch.stack([kernels.sum(2) @ places, kernels.sum(1) @ places], dim=1)
    torch.testing.assert_close(mean, path.mean(1), rtol=1e-12, atol=1e-12)
    fraction = path - path.floor()
    expected = (path[..., :, None] * path[..., None, :]).mean(1) - mean[:, :, None] * mean[:, None, :]
    expected = expected + torch.diag_embed((fraction * (1.0 - fraction)).mean(1))
    torch.testing.assert_close(covariance(kernels), expected, rtol=1e-11, atol=1e-11)


def test_a_motion_kernel_depends_on_the_id_of_the_image_alone():
    """The kernel depends neither on the size of the images nor on their channels."""
    small, large = DeblurMotion(9), DeblurMotion(9)
    drawn(small, random_images(2, 1, 9, 12))
    drawn(large, random_images(2, 3, 40, 33))
    assert torch.equal(small.kernel, large.kernel)
