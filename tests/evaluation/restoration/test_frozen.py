"""Frozen measurements: for every operator they are what was drawn and measured, and any other file is refused."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from configured import make_operator, options
from lazy import Lazy
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from diffusion_priors.evaluation.restoration.batches import collate
from diffusion_priors.evaluation.restoration.frozen import FrozenImages, freeze, measurement_spec
from diffusion_priors.evaluation.restoration.images import CleanImages
from diffusion_priors.images.fit import Crop
from diffusion_priors.operators.inpainting import InpaintRandom
from diffusion_priors.operators.noise_models import Gaussian, NoiseModel, Poisson

if TYPE_CHECKING:
    from diffusion_priors.evaluation.restoration.module import RestorationModule

restoration = Lazy("diffusion_priors.evaluation.restoration.module")

SHAPE = (3, 16, 16)
SPEC = {"operator._target_": "mine", "noise_model.sigma": 0.05}


def module(operator: nn.Module, noise: NoiseModel | None = None, seed: int = 0) -> RestorationModule:
    """A module that only measures."""
    return restoration.RestorationModule(nn.Identity(), None, operator, noise or Gaussian(0.1), None, [], None, SHAPE, seed)


@pytest.fixture
def images(tmp_path) -> CleanImages:
    generator = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for name in "ab":
        Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{name}.png")
    return CleanImages(str(tmp_path / "images"), 3, (16, 16), Crop())


@pytest.fixture
def frozen(tmp_path, images) -> Path:
    freeze(tmp_path / "frozen", module(InpaintRandom()), images, SPEC)
    return tmp_path / "frozen"


@pytest.mark.parametrize("noise", [Gaussian(0.1), Poisson(50.0)], ids=["gaussian", "poisson"])
@pytest.mark.parametrize("name", options("operator"))
def test_frozen_measurements_equal_new_ones(tmp_path, images, name, noise):
    """Also in a batch and with a module of another seed; and every random part that was drawn is in the file."""
    operator = make_operator(name, tmp_path)
    if isinstance(noise, Poisson) and module(operator).measure(images[0]).y.is_complex():
        pytest.skip("Poisson noise is refused for a complex y")
    freeze(tmp_path / "frozen", module(operator, noise), images, SPEC)
    found = FrozenImages(tmp_path / "frozen")
    batch = collate([found[0], found[1]])
    fresh = module(make_operator(name, tmp_path), noise)
    expected = fresh.measure(collate([images[0], images[1]]))
    assert batch.ids == ("a", "b") and torch.equal(batch.truth, torch.cat([images[0].truth, images[1].truth]))
    again = module(make_operator(name, tmp_path), noise, seed=5)
    again.measurement_seed = found.measurement_seed
    read = again.measure(batch)
    torch.testing.assert_close(read.y, expected.y, rtol=0, atol=1e-5)
    torch.testing.assert_close(read.sigma_y, expected.sigma_y)
    found.check(make_operator(name, tmp_path), SHAPE, SPEC)
    content = load_file(tmp_path / "frozen" / "a.safetensors")
    assert content["sigma_y"].item() == pytest.approx(expected.sigma_y[0].item(), rel=1e-5)
    drawn = [key for key, buffer in fresh.operator.named_buffers() if buffer.ndim == 4]
    assert drawn or not operator.random
    for key in drawn:
        torch.testing.assert_close(content[f"operator.{key}"], dict(fresh.operator.named_buffers())[key][0])


def test_the_hashes_are_those_of_the_files(frozen):
    content = json.loads((frozen / "measurements.json").read_text())
    assert content["images"] == {name: sha256((frozen / f"{name}.safetensors").read_bytes()).hexdigest() for name in "ab"}
    assert content["hash"] == sha256("".join(f"{name} {content['images'][name]}\n" for name in "ab").encode()).hexdigest()


def test_freezing_again_leaves_the_files_and_gives_their_hash(frozen, images):
    before = {path: path.stat().st_mtime_ns for path in frozen.iterdir()}
    assert freeze(frozen, module(InpaintRandom()), images, SPEC) == FrozenImages(frozen).hash
    assert {path: path.stat().st_mtime_ns for path in frozen.iterdir()} == before


def test_an_unfinished_folder_is_made_again_with_the_same_hash(frozen, images):
    """The list of files is written last."""
    kept = FrozenImages(frozen).hash
    (frozen / "measurements.json").unlink()
    (frozen / "b.safetensors").write_bytes(b"half")
    with pytest.raises(FileNotFoundError, match=r"measurements\.json is missing"):
        FrozenImages(frozen)
    assert freeze(frozen, module(InpaintRandom()), images, SPEC) == kept


def test_other_measurements_are_not_frozen_into_the_same_folder(frozen, images):
    with pytest.raises(ValueError, match="holds other measurements: seed was 0, is 1; choose another folder"):
        freeze(frozen, module(InpaintRandom(), seed=1), images, SPEC)
    with pytest.raises(ValueError, match=r"noise_model\.sigma was 0\.05, is 0\.2"):
        freeze(frozen, module(InpaintRandom()), images, SPEC | {"noise_model.sigma": 0.2})
    with pytest.raises(ValueError, match="2 images there, 1 here, 1 of the same name"):
        freeze(frozen, module(InpaintRandom()), images.only([0]), SPEC)


def test_a_changed_bit_anywhere_in_a_file_is_refused(frozen):
    """The header included."""
    path, reader = frozen / "b.safetensors", FrozenImages(frozen)
    data = path.read_bytes()
    for at in range(0, len(data), len(data) // 23):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(ValueError, match=r"b\.safetensors is missing or not the file that was frozen \(its SHA-256 differs\)"):
            reader.check(InpaintRandom(), SHAPE, SPEC)
    path.write_bytes(data)
    reader.check(InpaintRandom(), SHAPE, SPEC)


def test_an_operator_that_draws_another_mask_is_refused(frozen):
    """The configuration is the same, but the code is of another version."""
    other = InpaintRandom()
    draw = other.draw
    other.draw = lambda blank, generators: draw(blank, [np.random.default_rng(7) for _ in generators])
    with pytest.raises(ValueError, match="the operator draws another mask for a than "):
        FrozenImages(frozen).check(other, SHAPE, SPEC)


@pytest.mark.parametrize("kept", [[1], [0], [0, 1]])
def test_a_subset_of_the_images_keeps_their_order_and_samples(frozen, kept):
    found = FrozenImages(frozen, num_samples=2).only(kept)
    assert [(found[i].ids[0], found[i].samples[0]) for i in range(len(found))] == [("ab"[i], k) for i in kept for k in (0, 1)]


def test_a_frozen_folder_can_be_moved(frozen, tmp_path):
    shutil.move(frozen, tmp_path / "elsewhere")
    FrozenImages(tmp_path / "elsewhere").check(InpaintRandom(), SHAPE, SPEC)


def test_a_file_is_described_by_its_content_not_by_its_path(tmp_path):
    (tmp_path / "one").write_bytes(b"mask")
    (tmp_path / "two").write_bytes(b"mask")
    (tmp_path / "other").write_bytes(b"other")
    one, two, other = (measurement_spec({"path": str(tmp_path / name)}, {"sigma": 0.1}) for name in ("one", "two", "other"))
    assert one == two != other and one["noise_model.sigma"] == 0.1
