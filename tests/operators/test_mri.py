"""MRI: which entries of k-space are measured, in which convention, and what several coils see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from operator_cases import dense, generators, norms, random_images, random_like
from safetensors.numpy import save_file

from diffusion_priors.operators.coil_maps import GivenMaps, SimulatedMaps
from diffusion_priors.operators.kspace_masks import Equispaced, GivenMask, KSpaceMask, PoissonDisc, RandomColumns, spread
from diffusion_priors.operators.mri import MRI, MultiCoilMRI

COLUMNS = (Equispaced, RandomColumns)


def mask(drawn: KSpaceMask, width: int, images: int = 1, seed: int = 0) -> torch.Tensor:
    """(images or 1, width), after a draw."""
    return drawn(random_images(images, 1, 6, width), generators(range(images), seed))[:, 0, 0]


def centred_fft(x: np.ndarray) -> np.ndarray:
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(x, (-2, -1)), norm="ortho"), (-2, -1))


def centred_ifft(y: np.ndarray) -> np.ndarray:
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(y, (-2, -1)), norm="ortho"), (-2, -1))


@pytest.mark.parametrize("sides", [(8, 12), (9, 13), (8, 13)])
def test_the_measurement_is_the_centred_orthonormal_transform(sides):
    """Against NumPy's, on the measured columns; all of k-space gives the image back."""
    x = random_images(2, 3, *sides)
    some, everything = (MRI(Equispaced(acceleration, 0.1)).draw(x, generators(range(2))) for acceleration in (4.0, 1.0))
    torch.testing.assert_close(some(x), torch.tensor(centred_fft(x.numpy())) * some.mask, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(everything.adjoint(everything(x)), x, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(everything.pinv(everything(x)), x, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.parametrize(("acceleration", "center"), [(4.0, 0.08), (8.0, 0.04), (2.0, 0.3)])
def test_columns_are_measured_at_the_rate_of_the_acceleration(acceleration, center, kind):
    """The centre always, the others so that all are width/acceleration: exactly where equispaced, within 5 standard errors where random."""
    width, images = 320, 40
    drawn = mask(kind(acceleration, center), width, images)
    low = round(center * width)
    start = (width - low + 1) // 2
    assert (drawn[:, start : start + low] == 1.0).all() and drawn[:, width // 2].all()
    outside = torch.cat([drawn[:, :start], drawn[:, start + low :]], 1)
    share = (width / acceleration - low) / (width - low)
    if kind.random:
        assert abs(outside.mean() - share) <= 5.0 * (share * (1.0 - share) / outside.numel()) ** 0.5
        assert len({tuple(row.tolist()) for row in drawn}) == images
    else:
        assert len(drawn) == 1 and abs(drawn.sum().item() - width / acceleration) <= 2.0
        gaps = drawn[0, :start].nonzero().flatten().diff()
        assert drawn[0, 0] == 1.0 and set(gaps.tolist()) <= {int(1.0 / share), int(1.0 / share) + 1}


def test_a_random_offset_moves_evenly_spaced_columns():
    """Every column outside the centre is measured in its share of the images (5 standard errors), with the same gaps."""
    width, images = 96, 400
    drawn = mask(Equispaced(4.0, 0.08, random_offset=True), width, images)
    share = (width / 4.0 - 8) / (width - 8)
    outside = torch.cat([drawn[:, :44], drawn[:, 52:]], 1)
    assert ((outside.mean(0) - share).abs() <= 5.0 * (share * (1.0 - share) / images) ** 0.5).all()
    assert {gap for row in drawn for gap in row[:44].nonzero().flatten().diff().tolist()} <= {5, 6}
    assert MRI(Equispaced(random_offset=True)).random and not MRI(Equispaced()).random


@pytest.mark.parametrize("drawn", [RandomColumns(), Equispaced(random_offset=True), PoissonDisc()], ids=lambda drawn: type(drawn).__name__)
def test_random_entries_belong_to_the_image_and_the_seed(drawn):
    first, again, other = (drawn(random_images(3, 1, 20, 48), generators(range(3), seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(drawn(random_images(1, 1, 20, 48), generators([0])), first[:1])
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize(("acceleration", "least"), [(3.0, 1), (6.0, 2), (12.0, 5), (1.0, 0)])
def test_poisson_discs_do_not_overlap_and_leave_no_gaps(acceleration, least):
    """Exactly 1/acceleration of the entries; outside the centre squared distances of `least` or more; no large hole is left."""
    drawn = PoissonDisc(acceleration, 0.1)(random_images(2, 1, 40, 60), generators(range(2)))
    assert drawn.shape == (2, 1, 40, 60) and (drawn.flatten(1).sum(1) == round(40 * 60 / acceleration)).all()
    assert (drawn[:, :, 18:22, 27:33] == 1.0).all()
    for one in drawn[:, 0]:
        one[18:22, 27:33] = 0.0
        points = one.nonzero().double()
        nearest = torch.cdist(points, points).fill_diagonal_(1e9).amin(1).square()
        assert nearest.min() >= least - 1e-9
        hole = torch.cdist(torch.cartesian_prod(torch.arange(40.0), torch.arange(60.0)).double(), points).amin(1)
        assert hole.max() <= 3.0 * acceleration**0.5 + 4.0


def test_points_are_spread_as_they_come_one_by_one():
    """Against the definition: each point in turn, the largest value first, if none is near that was kept before."""
    order = np.random.default_rng(0).random((14, 11))
    for squared in (0, 1, 2, 5, 10):
        kept: list[tuple[int, int]] = []
        for flat in np.argsort(order, axis=None)[::-1]:
            row, column = divmod(int(flat), 11)
            if all((row - r) ** 2 + (column - c) ** 2 >= squared for r, c in kept):
                kept.append((row, column))
        assert sorted(kept) == sorted(zip(*np.nonzero(spread(order, squared)), strict=True))


def test_narrow_images_keep_their_centre():
    """At least one column, the zero frequency, however narrow the image."""
    for width in (1, 2, 5, 8):
        assert mask(Equispaced(8.0, 0.04), width)[0, width // 2] == 1.0


@pytest.mark.parametrize("measured", [RandomColumns(3.0), PoissonDisc(3.0)], ids=lambda drawn: type(drawn).__name__)
def test_an_entry_of_k_space_determines_the_one_at_the_opposite_frequency(measured):
    """x0 is real: A⁺y is nearer to x0 than Aᴴy, and its transform is right at the opposite frequencies too."""
    x = random_images(2, 1, 8, 24)
    operator = MRI(measured).draw(x, generators(range(2)))
    y = operator(x)
    assert (norms(operator.pinv(y) - x) < norms(operator.adjoint(y) - x)).all()
    opposite = operator.mask.flip((-2, -1)).roll((1, 1), (-2, -1))
    difference = torch.tensor(centred_fft((operator.pinv(y) - x).numpy())) * opposite
    assert difference.abs().max() < 1e-12


def test_the_adjoint_and_the_pseudoinverse_of_a_real_image_are_real():
    x = random_images(2, 1, 8, 24).float()
    operator = MRI(Equispaced()).draw(x, generators(range(2)))
    y = operator(x)
    assert y.dtype == torch.complex64 and operator.initial_image(y).dtype == torch.float32
    assert (norms(operator(operator.pinv(y)) - y) <= 1e-5 * norms(y)).all()


@pytest.mark.parametrize("measured", [Equispaced(2.0, 0.1), PoissonDisc(2.0, 0.1)], ids=lambda drawn: type(drawn).__name__)
def test_several_coils_see_the_image_through_their_maps(measured):
    """y_c = M F(S_c x) and Aᴴy = Re Σ conj(S_c) F⁻¹(M y_c), against NumPy's, coil by coil and channel by channel."""
    x = random_images(2, 3, 8, 10)
    operator = MultiCoilMRI(measured, SimulatedMaps(4)).draw(x, generators(range(2)))
    y, maps, m = operator(x), operator.maps.numpy(), operator.mask.numpy()
    assert y.shape == (2, 12, 8, 10)
    expected = np.concatenate([m * centred_fft(maps[:, c, None] * x.numpy()) for c in range(4)], 1)
    np.testing.assert_allclose(y.numpy(), expected, atol=1e-13)
    v = random_like(y, seed=2)
    back = sum(np.conj(maps[:, c, None]) * centred_ifft(m * v.numpy()[:, 3 * c : 3 * c + 3]) for c in range(4))
    np.testing.assert_allclose(operator.adjoint(v).numpy(), back.real, atol=1e-13)


def test_simulated_maps_share_the_image_among_the_coils():
    """Σ |S_c|² = 1 everywhere, so that ‖A‖ ≤ 1 and all of k-space gives the image back; each coil sees its own side best."""
    maps = SimulatedMaps(4)(20, 30)
    torch.testing.assert_close(maps.abs().square().sum(0), torch.ones(20, 30, dtype=torch.float64))
    sides = [maps[c].abs() for c in range(4)]  # right, bottom, left, top
    assert sides[0][:, -1].min() > sides[0][:, 0].max() and sides[2][:, 0].min() > sides[2][:, -1].max()
    assert sides[1][-1].min() > sides[1][0].max() and sides[3][0].min() > sides[3][-1].max()
    assert maps.angle().flatten(1).std(1).min() > 0.1
    x = random_images(1, 1, 6, 7)
    full = MultiCoilMRI(Equispaced(1.0), SimulatedMaps(3)).draw(x, generators([0]))
    torch.testing.assert_close(full.adjoint(full(x)), x, rtol=1e-12, atol=1e-13)
    some = MultiCoilMRI(Equispaced(3.0), SimulatedMaps(3)).draw(x, generators([0]))
    assert torch.linalg.matrix_norm(dense(some), 2) <= 1.0 + 1e-12


def test_several_coils_fill_in_for_each_other():
    """At acceleration 2 a single coil leaves much unknown; four different ones leave almost nothing."""
    x = random_images(1, 1, 12, 16)
    single = MRI(Equispaced(2.0)).draw(x, generators([0]))
    several = MultiCoilMRI(Equispaced(2.0), SimulatedMaps(6)).draw(x, generators([0]))
    errors = [norms(operator.pinv(operator(x)) - x).item() for operator in (single, several)]
    assert errors[1] < 0.2 * errors[0]


def test_masks_and_maps_come_from_files(tmp_path):
    x = random_images(2, 1, 6, 8)
    columns = np.array([1, 0, 0, 1, 1, 1, 0, 0])
    entries = np.random.default_rng(0).random((6, 8)) < 0.5
    maps = np.random.default_rng(1).normal(size=(2, 6, 8, 2)).view(np.complex128)[..., 0]
    np.save(tmp_path / "columns.npy", columns)
    save_file({"mask": entries}, tmp_path / "entries.safetensors")
    np.save(tmp_path / "maps.npy", maps)
    for name, expected in (("columns.npy", columns[None]), ("entries.safetensors", entries)):
        operator = MultiCoilMRI(GivenMask(str(tmp_path / name)), GivenMaps(str(tmp_path / "maps.npy"))).draw(x, generators(range(2)))
        y = np.concatenate([expected * centred_fft(maps[c] * x.numpy()) for c in range(2)], 1)
        np.testing.assert_allclose(operator(x).numpy(), y, atol=1e-13)


@pytest.mark.parametrize(
    ("content", "make", "says"),
    [
        (np.zeros(8), GivenMask, r"not 0 somewhere, got shape \(8,\); set operator\.mask\.path"),
        (np.ones((1, 2, 8)), GivenMask, r"must be \(W,\) or \(H, W\) .*got shape \(1, 2, 8\)"),
        (np.ones((6, 8)), GivenMaps, r"must be \(coils, H, W\) .*got shape \(6, 8\); set operator\.maps\.path"),
        (np.full((2, 6, 8), np.nan), GivenMaps, "96 entries that are not finite"),
        (np.array([None]), GivenMaps, r"cannot read the sensitivity maps .*; set operator\.maps\.path"),
    ],
)
def test_files_without_a_mask_or_maps_are_refused(tmp_path, content, make, says):
    np.save(tmp_path / "a.npy", content)
    with pytest.raises(ValueError, match=says):
        make(str(tmp_path / "a.npy"))


def test_files_of_another_size_than_the_images_are_refused(tmp_path):
    np.save(tmp_path / "mask.npy", np.ones((6, 8)))
    np.save(tmp_path / "maps.npy", np.ones((2, 6, 8)))
    with pytest.raises(ValueError, match=r"is \(6, 8\) and the images are \(8, 8\); set operator\.mask\.path"):
        MRI(GivenMask(str(tmp_path / "mask.npy"))).draw(random_images(1, 1, 8, 8), generators([0]))
    with pytest.raises(ValueError, match=r"are of \(6, 8\) pixels and the images are \(8, 8\); set operator\.maps\.path"):
        MultiCoilMRI(Equispaced(), GivenMaps(str(tmp_path / "maps.npy"))).draw(random_images(1, 1, 8, 8), generators([0]))


@pytest.mark.parametrize("kind", [*COLUMNS, PoissonDisc])
@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        ({"acceleration": 0.5}, r"got 0\.5; set operator\.mask\.acceleration"),
        ({"acceleration": float("nan")}, r"nan; set operator\.mask\.acceleration"),
        ({"center_fraction": 0.0}, r"got 0\.0; set operator\.mask\.center_fraction"),
        ({"acceleration": 16.0, "center_fraction": 0.3}, r"got 0\.3; set operator\.mask\.center_fraction"),
    ],
)
def test_settings_without_a_mask_are_refused(settings, seen, kind):
    with pytest.raises(ValueError, match=seen):
        kind(**settings)


@pytest.mark.parametrize(("settings", "seen"), [({"coils": 0}, r"got 0; set operator\.maps\.coils"), ({"radius": 1.0}, r"got 1\.0; set")])
def test_settings_without_coils_are_refused(settings, seen):
    with pytest.raises(ValueError, match=seen):
        SimulatedMaps(**settings)
