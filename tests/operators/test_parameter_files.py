"""Operators with their mask, matrix or phases from a file: they are the drawn ones, and explain a measurement of these."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from operator_cases import generators, random_images
from PIL import Image
from safetensors.numpy import save_file

from diffusion_priors.operators.hadamard import WalshHadamard
from diffusion_priors.operators.inpainting import InpaintMask
from diffusion_priors.operators.kernel_file import read_kernel
from diffusion_priors.operators.phase_retrieval import CodedDiffraction
from diffusion_priors.operators.random_matrix import RandomMatrix

SIDES = (8, 16)


def drawn(operator, x):
    return operator.draw(x, generators(range(len(x))))


def pair(name, x, folder):
    """(the operator that draws its parts, the one that reads them)."""
    path = str(folder / "own.npz")
    if name == "random_matrix":
        random = drawn(RandomMatrix(5), x)
        np.savez(path, random.matrix.numpy())
        return random, RandomMatrix(path=path)
    if name == "coded_diffraction":
        random = drawn(CodedDiffraction(3), x)
        np.savez(path, random.phase[0].numpy())
        return random, CodedDiffraction(path=path)
    random = drawn(WalshHadamard(0.5), x)
    np.savez(path, mask=random.mask[0, 0].numpy(), signs=random.signs[0, 0].numpy())
    return random, WalshHadamard(path=path)


@pytest.mark.parametrize("name", ["random_matrix", "coded_diffraction", "walsh_hadamard"])
def test_an_operator_reads_what_another_one_drew(name, tmp_path):
    """The same y for every image of a batch, and nothing random left: a measurement of one's own can be restored."""
    x = random_images(1, 3, *SIDES)
    random, own = pair(name, x, tmp_path)
    assert not own.random
    torch.testing.assert_close(drawn(own, x)(x), random(x), rtol=1e-12, atol=1e-12)
    two = torch.cat([random_images(1, 3, *SIDES, seed=1), x])
    torch.testing.assert_close(drawn(own, two)(two)[1:], random(x), rtol=1e-12, atol=1e-12)
    if own.linear:
        torch.testing.assert_close(own.pinv(own(two))[1:], random.pinv(random(x)), rtol=1e-9, atol=1e-9)


def test_rows_without_signs_are_those_of_the_plain_transform(tmp_path):
    """Those of scipy's Hadamard matrices, row by row in their order."""
    from scipy.linalg import hadamard

    mask = np.zeros(SIDES, np.uint8)
    mask[2, 5] = mask[7, 15] = 1
    np.save(tmp_path / "rows.npy", mask)
    x = random_images(1, 1, *SIDES)
    y = drawn(WalshHadamard(path=str(tmp_path / "rows.npy")), x)(x)[0, 0].numpy()
    expected = hadamard(8) @ x[0, 0].numpy() @ hadamard(16) / np.sqrt(128.0)
    np.testing.assert_allclose(y, expected * mask, atol=1e-12)


def test_a_mask_may_be_an_array(tmp_path):
    known = np.random.default_rng(0).uniform(size=SIDES) < 0.5
    Image.fromarray(known.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    np.save(tmp_path / "mask.npy", known)
    np.savez(tmp_path / "mask.npz", known * 0.01)
    save_file({"mask": known.astype(np.uint8)}, tmp_path / "mask.safetensors")
    x = random_images(1, 3, *SIDES)
    for suffix in ("png", "npy", "npz", "safetensors"):
        assert torch.equal(drawn(InpaintMask(str(tmp_path / f"mask.{suffix}")), x).mask[0, 0].bool(), torch.from_numpy(known))


def test_a_kernel_may_be_an_array_of_any_format(tmp_path):
    kernel = np.random.default_rng(0).uniform(size=(3, 5))
    np.save(tmp_path / "kernel.npy", kernel)
    np.savez(tmp_path / "kernel.npz", kernel)
    save_file({"kernel": kernel}, tmp_path / "kernel.safetensors")
    for suffix in ("npy", "npz", "safetensors"):
        np.testing.assert_array_equal(read_kernel(str(tmp_path / f"kernel.{suffix}")), kernel)


REFUSED = {
    "a matrix for other images": (RandomMatrix, {"arr_0": np.ones((2, 7))}, "has rows of 7 numbers, an image 384; set operator.path"),
    "a vector": (RandomMatrix, {"arr_0": np.ones(7)}, r"must be real numbers \(rows, C · H · W\), got shape \(7,\)"),
    "a complex matrix": (RandomMatrix, {"arr_0": np.ones((2, 384)) * 1j}, "must be real numbers .* complex128"),
    "a NaN": (CodedDiffraction, {"arr_0": np.full((2, 8, 16), np.nan)}, "256 entries that are not finite"),
    "one phase mask without its axis": (CodedDiffraction, {"arr_0": np.ones(SIDES)}, r"must be real numbers \(masks, H, W\)"),
    "phases of other images": (CodedDiffraction, {"arr_0": np.ones((2, 8, 8))}, r"of \(8, 8\) pixels and the images are \(8, 16\)"),
    "rows of other images": (WalshHadamard, {"mask": np.ones((8, 8))}, r"are of \(8, 8\) pixels and the images are \(8, 16\)"),
    "no row": (WalshHadamard, {"mask": np.zeros(SIDES)}, r"a mask \(8, 16\) with 0 entries"),
    "signs of another size": (WalshHadamard, {"mask": np.ones(SIDES), "signs": np.ones((8, 8))}, r"and signs \(8, 8\); set operator"),
    "signs that are none": (WalshHadamard, {"mask": np.ones(SIDES), "signs": np.zeros(SIDES)}, "signs of -1 and 1 for the same pixels"),
    "rows without a name": (WalshHadamard, {"m": np.ones(SIDES), "s": np.ones(SIDES)}, "none is called mask"),
    "a mask with three axes": (InpaintMask, {"arr_0": np.ones((3, *SIDES))}, r"must be real numbers \(H, W\), got shape \(3, 8, 16\)"),
    "a mask of known pixels alone": (InpaintMask, {"arr_0": np.ones(SIDES)}, "has nothing missing"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_file_with_something_else_is_refused(what, tmp_path):
    kind, arrays, message = REFUSED[what]
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        drawn(kind(path=str(tmp_path / "own.npz")), random_images(1, 3, *SIDES))
