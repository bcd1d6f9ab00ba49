"""Measurements from a file: every operator's y in every format, exactly; what cannot be y is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from operator_cases import ALL, CONFIGS, Case, random_images
from safetensors.numpy import save_file

from diffusion_priors.operators.array_file import read_measurement

LIKE = torch.zeros(3, 4, 6)


def write(path, array):
    """The array alone in an .npy; called y, between others, in the other formats."""
    others = {"operator.mask": np.ones(3), "x0": np.zeros((2, 2))}
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, y=array, **others)
    else:
        save_file({"y": np.ascontiguousarray(array), **others}, path)  # it would write other memory layouts as they lie
    return path


@pytest.mark.parametrize("name", CONFIGS)
def test_the_measurement_of_every_operator_comes_back_from_every_format(name, tmp_path):
    """Bit by bit and of the same type; also from double precision."""
    case = Case(name)
    x = random_images(1, 3, *case.sides(), dtype=torch.float32)
    y = case.drawn(x, tmp_path)(x)
    for suffix in (".npy", ".npz", ".safetensors"):
        found, repeated = read_measurement(write(tmp_path / f"y{suffix}", y[0].numpy()), y[0], 3)
        assert torch.equal(found, y[0]) and found.dtype == y.dtype and found.shape == y[0].shape and not repeated
    double = torch.complex128 if y.is_complex() else torch.float64
    assert torch.equal(read_measurement(write(tmp_path / "y.npy", y.to(double).numpy()), y[0], 3)[0], y[0])


@pytest.mark.parametrize("case", [case for case in ALL if case.name not in {"jpeg", "quantisation"}], ids=str)
def test_the_measurement_of_a_grey_image_is_that_of_its_three_equal_channels(case, tmp_path):
    """Wherever y of one channel is accepted for three: channel by channel, and within each coil or mask. Roundings differ."""
    grey = random_images(1, 1, *case.sides())
    colour = grey.expand(-1, 3, -1, -1)
    single, y = case.drawn(grey, tmp_path)(grey), case.drawn(colour, tmp_path)(colour)
    if single.numel() * 3 != y.numel():
        return
    found, repeated = read_measurement(write(tmp_path / "grey.npy", single[0].numpy()), y[0], 3)
    assert repeated
    torch.testing.assert_close(found, y[0], rtol=1e-9, atol=1e-9)


def test_complex_numbers_may_be_pairs_of_real_ones(tmp_path):
    """As torch.view_as_real and fastMRI's tensors have them; two channels in front are no pair."""
    y = torch.randn(1, 4, 6, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    pairs = torch.view_as_real(y)
    for array in (pairs, pairs[0]):
        assert torch.equal(read_measurement(write(tmp_path / "y.npy", array.numpy()), y, 1)[0], y)
    with pytest.raises(ValueError, match=r"is \(2, 4, 6\) float32, and the operator gives \(1, 4, 6\) complex64"):
        read_measurement(write(tmp_path / "y.npy", pairs[0].movedim(-1, 0).numpy()), y, 1)


REFUSED = {
    "another shape": (np.zeros((3, 6, 4)), r"is \(3, 6, 4\) float64, and the operator gives \(3, 4, 6\) or, for a grey image, \(1, 4, 6\)"),
    "channels last": (np.zeros((4, 6, 3)), r"is \(4, 6, 3\) float64"),
    "two channels": (np.zeros((2, 4, 6)), r"is \(2, 4, 6\) float64"),
    "bytes": (np.zeros((3, 4, 6), np.uint8), r"is \(3, 4, 6\) uint8, and the operator gives .* float32"),
    "a mask": (np.ones((3, 4, 6), bool), r"is \(3, 4, 6\) bool"),
    "complex numbers": (np.zeros((3, 4, 6), np.complex64), r"is \(3, 4, 6\) complex64, .* float32"),
    "text": (np.full((3, 4, 6), "a"), "must be numbers, got shape"),
    "NaN": (np.where(np.arange(72).reshape(3, 4, 6) == 7, np.nan, 0.0), "has 1 entries that are not finite"),
    "more than single precision holds": (np.full((3, 4, 6), 1e300), "has values up to 1e"),
    "pixels from 0 to 255": (np.full((3, 4, 6), 128.0), "has values up to 128, far beyond the unit of y"),
    "nothing": (np.zeros((0, 4, 6)), r"must be numbers, got shape \(0, 4, 6\)"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_the_measurement_is_refused(what, tmp_path):
    array, message = REFUSED[what]
    np.save(tmp_path / "y.npy", array)
    with pytest.raises(ValueError, match=message):
        read_measurement(tmp_path / "y.npy", LIKE, 3, largest=10.0)


def test_files_that_hold_no_measurement_are_refused(tmp_path):
    """Several arrays without a y, pickled objects, damage, and a name of another format: each in one line."""
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{")
    (tmp_path / "y.mat").write_bytes(b"x")
    messages = {
        "two.npz": r"it holds 2 arrays \(a, b\), and none is called y; set measurement or data\.degraded to",
        "object.npy": "cannot read the measurement",
        "cut.safetensors": "cannot read the measurement",
        "y.mat": r"its name ends neither in \.npy nor in",
        "none.npy": "cannot read the measurement",
    }
    for name, message in messages.items():
        with pytest.raises(ValueError, match=message) as error:
            read_measurement(tmp_path / name, LIKE, 3)
        assert len(str(error.value).splitlines()) == 1
