"""Parallel-beam tomography: rays against scikit-image and against integrals in closed form, angles, adjoint and a quick look."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from operator_cases import dense, generators, inner, norms, random_images, residual_bound
from safetensors.numpy import save_file

from diffusion_priors.operators.tomography import Tomography, detectors, radon_matrix


def drawn(x: torch.Tensor, **settings) -> Tomography:
    return Tomography(**settings).draw(x, generators(range(len(x))))


@pytest.mark.parametrize("sides", [(17, 24), (16, 16), (23, 14)])
def test_projections_are_those_of_scikit_image(sides):
    """Its `radon` pads to the diagonal square, turns the image with linear interpolation and sums; up to rounding in double precision."""
    transform = pytest.importorskip("skimage.transform", reason='pip install -e ".[test]"')
    x, degrees = random_images(1, 1, *sides)[0, 0].numpy(), np.array([0.0, 13.0, 45.0, 90.0, 120.0, 179.0])
    expected = transform.radon(x, degrees, circle=False).T
    found = (radon_matrix(*sides, degrees) @ x.ravel()).reshape(len(degrees), -1)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_rays_along_the_axes_sum_columns_and_rows():
    """θ = 0 looks down the columns; θ = 90° along the rows, from the last to the first."""
    x = random_images(2, 3, 10, 14)
    operator = drawn(x, angles=2)
    y, count = operator(x) * operator.norm, detectors(10, 14)
    assert y.shape == (2, 3, 2, count)
    for angle, expected, middle in ((0, x.sum(-2), 7), (1, x.sum(-1).flip(-1), 4)):
        start = count // 2 - middle
        torch.testing.assert_close(y[:, :, angle, start : start + expected.shape[-1]], expected, rtol=1e-12, atol=1e-12)


def test_a_disc_is_projected_to_its_chords():
    """2 √(r² − s²) from any direction, up to the pixels at its edge."""
    row, column = np.mgrid[:64, :64] - 32.0
    disc = torch.tensor(row**2 + column**2 <= 20.0**2, dtype=torch.float64)[None, None]
    operator = drawn(disc, angles=7)
    y = operator(disc)[0, 0] * operator.norm
    s = torch.arange(y.shape[-1]) - y.shape[-1] // 2
    chords = 2.0 * (20.0**2 - s.double() ** 2).clamp_min(0.0).sqrt()
    assert (y - chords).abs().max() < 5.0 and (y - chords).abs().mean() < 0.5
    torch.testing.assert_close(y.sum(-1), disc.sum().expand(7), rtol=2e-3, atol=0)


@pytest.mark.parametrize("settings", [{}, {"angles": 5, "span": 60.0}, {"angles": 1}], ids=str)
def test_the_norm_is_one_and_the_adjoint_is_the_transpose(settings):
    x = random_images(1, 1, 9, 12)
    operator = drawn(x, **settings)
    matrix = dense(operator)
    assert torch.linalg.matrix_norm(matrix, 2).item() == pytest.approx(1.0, rel=1e-9)
    y = random_images(*operator(x).shape, seed=3)
    torch.testing.assert_close(operator.adjoint(y).flatten(1), y.flatten(1) @ matrix, rtol=1e-12, atol=1e-13)
    x = random_images(2, 3, 40, 28)
    operator = drawn(x, **settings)
    y = random_images(*operator(x).shape, seed=3)
    torch.testing.assert_close(inner(operator(x), y), inner(x, operator.adjoint(y)), rtol=1e-11, atol=1e-12)


def test_angles_are_spread_over_the_span_or_read_from_a_file(tmp_path):
    assert Tomography(4).degrees.tolist() == [0.0, 45.0, 90.0, 135.0]
    assert Tomography(3, 60.0).degrees.tolist() == [0.0, 20.0, 40.0]
    np.save(tmp_path / "angles.npy", np.array([3, 50, 171]))
    save_file({"degrees": np.array([3.0, 50.0, 171.0])}, tmp_path / "angles.safetensors")
    np.savez(tmp_path / "angles.npz", np.array([3.0, 50.0, 171.0]))
    x = random_images(1, 1, 8, 8)
    for name in ("angles.npy", "angles.safetensors", "angles.npz"):
        operator = drawn(x, path=str(tmp_path / name))
        assert operator.degrees.tolist() == [3.0, 50.0, 171.0] and operator(x).shape[2] == 3


def test_back_projection_of_filtered_rays_shows_the_image():
    """From many directions the disc stands out as it was, inside and outside; from few it is streaked."""
    row, column = np.mgrid[:48, :40]
    disc = 2.0 * torch.tensor((row - 20) ** 2 + (column - 22) ** 2 <= 12**2, dtype=torch.float64)[None, None] - 1.0
    errors = []
    for angles in (180, 12):
        operator = drawn(disc, angles=angles)
        errors.append(norms(operator.filtered_back_projection(operator(disc)) - disc).item() / norms(disc).item())
    assert errors[0] < 0.15 and errors[1] > 1.5 * errors[0]


def test_few_angles_leave_much_unknown_and_the_pseudoinverse_explains_them():
    x = random_images(2, 1, 12, 12)
    operator = drawn(x, angles=3)
    y = operator(x)
    found = operator.pinv(y)
    assert (norms(operator(found) - y) <= residual_bound(operator, x)).all() and (norms(found) < norms(x)).all()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"angles": 0}, r"got 0; set operator\.angles"),
        ({"span": 0.0}, r"got 0\.0; set operator\.span"),
        ({"span": 181.0}, r"got 181\.0; set operator\.span"),
    ],
)
def test_settings_without_rays_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        Tomography(**settings)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("angles.txt", b"0 10", "neither in .npy nor in .npz or .safetensors; set operator.path"),
        ("angles.npy", b"0 10", "cannot read the angles"),
        ("angles.npy", np.zeros((2, 2)), r"must be real numbers \(angles,\), got shape \(2, 2\)"),
        ("angles.npy", np.array([0.0, np.nan]), "1 entries that are not finite"),
        ("angles.npy", np.array(["a"]), "must be numbers"),
        ("angles.safetensors", {"a": np.zeros(2), "b": np.zeros(2)}, r"holds 2 arrays \(a, b\), and one is wanted"),
    ],
    ids=str,
)
def test_files_without_angles_are_refused(tmp_path, name, content, says):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        save_file(content, path)
    else:
        np.save(path, content)
    with pytest.raises(ValueError, match=says):
        Tomography(path=str(path))


def test_no_file_of_angles_runs_code(tmp_path):
    objects = np.array([print], dtype=object)
    np.save(tmp_path / "angles.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "angles.npz", objects)
    for name in ("angles.npy", "angles.npz"):
        with pytest.raises(ValueError, match="cannot read the angles"):
            Tomography(path=str(tmp_path / name))
