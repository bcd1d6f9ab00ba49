"""schedule=betas: one's own betas from a list or a file."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from diffusion_priors.diffusion.betas_file import own_betas
from diffusion_priors.diffusion.schedules import Betas, Linear

BETAS = Linear(20).betas


def write(path) -> None:
    values = np.array(BETAS)
    {
        ".npy": lambda: np.save(path, values),
        ".txt": lambda: path.write_text("\n".join(map(str, BETAS))),
        ".csv": lambda: path.write_text(", ".join(map(str, BETAS))),
        ".json": lambda: path.write_text(json.dumps(BETAS)),
        ".safetensors": lambda: save_file({"betas": values}, path),
    }[path.suffix]()


@pytest.mark.parametrize("kind", [".npy", ".txt", ".csv", ".json", ".safetensors"])
def test_betas_of_a_file_are_those_of_the_list(kind, tmp_path):
    path = tmp_path / f"betas{kind}"
    write(path)
    found = own_betas(str(path))
    assert type(found) is Betas and found.table == own_betas(BETAS).table == Linear(20).table
    assert found.describe() == {"kind": "betas", "betas": BETAS}


BAD = {
    "matrix.npy": (lambda path: np.save(path, np.ones((2, 2))), "array of shape"),
    "objects.npy": (lambda path: np.save(path, np.array([{}]), allow_pickle=True), "damaged or holds no betas"),
    "words.txt": (lambda path: path.write_text("one two"), "damaged or holds no betas"),
    "deep.json": (lambda path: path.write_text("[" * 100_000), "damaged or holds no betas"),
    "object.json": (lambda path: path.write_text("{}"), "damaged or holds no betas"),
    "two.safetensors": (lambda path: save_file({"a": np.ones(2), "b": np.ones(2)}, path), "2 tensors instead of one"),
    "empty.txt": (lambda path: path.write_text(""), "1 to 100000 steps, got steps=0"),
    "empty.npy": (lambda path: path.write_bytes(b""), "damaged or holds no betas"),
    "large.txt": (lambda path: path.write_text("0.5 1.5"), "between 0 and 1"),
    "betas.pkl": (lambda path: path.write_text(""), "holds no betas that can be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_without_betas_is_refused(name, tmp_path):
    make, message = BAD[name]
    make(tmp_path / name)
    with pytest.raises(ValueError, match=message) as raised:
        own_betas(str(tmp_path / name))
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file of betas at .*none\.npy; set schedule\.betas"):
        own_betas(str(tmp_path / "none.npy"))
