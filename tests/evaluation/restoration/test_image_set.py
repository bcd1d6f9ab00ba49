"""Which images are taken: two parts without a common image, chosen by names alone."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_priors.evaluation.restoration.batches import measurement_hash
from diffusion_priors.evaluation.restoration.images import ImageSet
from diffusion_priors.images.fit import Crop
from diffusion_priors.operators.identity import Identity
from diffusion_priors.operators.kspace_masks import Equispaced
from diffusion_priors.operators.mri import MRI

NAMES = [f"face-{i:04}" for i in range(4000)]


def taken(names: list[str], **how) -> list[str]:
    return [names[i] for i in ImageSet(Crop(), **how).chosen(names)]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_the_two_parts_are_disjoint_and_complete_and_have_their_size(share):
    """A name is in validation with probability `share`: within four standard deviations."""
    validation, test = (taken(NAMES, split=split, validation=share) for split in ("validation", "test"))
    assert sorted(validation + test) == NAMES and not {*validation} & {*test}
    assert abs(len(validation) / len(NAMES) - share) < 4 * (share * (1 - share) / len(NAMES)) ** 0.5


def test_an_image_stays_in_its_part_when_others_are_added_or_removed():
    """In any order, and a larger validation part contains the smaller one."""
    some = random.Random(0).sample(NAMES, 700)
    for split in ("validation", "test"):
        assert taken(some, split=split) == [name for name in taken(NAMES, split=split) if name in {*some}]
    assert {*taken(NAMES, split="validation", validation=0.1)} < {*taken(NAMES, split="validation", validation=0.3)}


def test_the_limit_takes_the_first_by_name_of_the_part():
    shuffled = random.Random(1).sample(NAMES, len(NAMES))
    assert taken(shuffled, limit=3) == NAMES[:3]
    assert taken(shuffled, limit=3, split="test") == taken(NAMES, split="test")[:3]
    assert taken(NAMES[:2], limit=5) == NAMES[:2]


def test_the_images_are_those_of_the_names(tmp_path):
    """Each item holds its own image and its samples follow one another."""
    for i, name in enumerate("cab"):
        Image.fromarray(np.full((8, 8, 3), 40 * i, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    method = SimpleNamespace(image_shape=(3, 4, 4), operator=Identity())
    found = ImageSet(Crop(), str(tmp_path), limit=2).items(method, 2)
    items = [found[i] for i in range(len(found))]
    assert [(item.ids, item.samples) for item in items] == [(("a",), (0,)), (("a",), (1,)), (("b",), (0,)), (("b",), (1,))]
    assert [round((item.truth.mean().item() + 1) * 127.5) for item in items] == [40, 40, 80, 80]


def test_measurements_are_found_by_what_their_operator_measures(tmp_path):
    """Arrays and images where y is an image, arrays alone elsewhere; arrays are taken as they are, images are fitted."""
    y = np.random.default_rng(0).uniform(-1.2, 1.2, (3, 4, 4)).astype(np.float32)
    np.save(tmp_path / "a.npy", y)
    Image.fromarray(np.full((8, 8, 3), 40, dtype=np.uint8)).save(tmp_path / "b.png")
    np.save(tmp_path / "far.npy", 127.5 * y)

    def found(operator, *where: str, like=None):
        operator.draw(torch.zeros(1, 3, 4, 4), [None])
        grey = torch.zeros(1, 3, 4, 4) if like is None else like
        method = SimpleNamespace(image_shape=(3, 4, 4), operator=operator, grey_measurement=lambda: grey)
        return ImageSet(Crop(), degraded=[str(tmp_path / one) for one in where]).items(method, 1)

    items = found(Identity(), "a.npy", "b.png")
    assert torch.equal(items[0].measured[0], torch.from_numpy(y)) and items[1].measured.shape == (1, 3, 4, 4) and items[0].truth is None
    assert found(Identity(), ".").ids == ["a.npy", "b", "far.npy"]
    with pytest.raises(ValueError, match=r"far.npy has values up to 15\d, far beyond the unit of y"):
        found(Identity(), "far.npy").check(Identity(), (3, 4, 4), {})
    kspace = torch.zeros(1, 3, 4, 4, dtype=torch.complex64)
    assert found(MRI(Equispaced(2.0)), ".", like=kspace).ids == ["a.npy", "far.npy"]
    with pytest.raises(ValueError, match=r"a.npy is \(3, 4, 4\) float32, and the operator gives .* complex64"):
        found(MRI(Equispaced(2.0)), "a.npy", like=kspace)[0]


def test_measurements_that_differ_have_other_hashes():
    """By any bit of their numbers; those of images by their pixels alone, whatever rounding a machine has."""
    image = torch.randint(0, 256, (3, 4, 4), generator=torch.Generator().manual_seed(0)) / 127.5 - 1.0
    y, kspace = image + 1e-6, torch.complex(image, image)
    hashes = [measurement_hash("", 0, "a", one) for one in (image, y, y + 1e-6, kspace, kspace * 1.000001, -image, None)]
    assert len({*hashes}) == len(hashes)
    assert measurement_hash("", 0, "a", image.double()) == hashes[0] != measurement_hash("", 0, "b", image)


BAD = [
    ({"validation": 0.0}, "got 0.0"),
    ({"validation": 1.0}, "got 1.0"),
    ({"limit": 0}, "got 0; set data.limit"),
    ({"limit": -1}, "got -1; set data.limit"),
    ({"workers": -2}, "data.workers=-2 is not between 0 and"),
    ({"measurements": "a", "freeze": "b"}, "give one of them"),
    ({"measurements": "a", "root": "b"}, "data.root and data.measurements are both given"),
    ({"degraded": "a", "root": "b"}, "data.root and data.degraded are both given"),
    ({"degraded": "a", "freeze": "b"}, "give one of them"),
]


@pytest.mark.parametrize(("how", "message"), BAD)
def test_invalid_settings_are_refused(how, message):
    with pytest.raises(ValueError, match=message):
        ImageSet(Crop(), **how)


def test_an_empty_part_is_refused():
    with pytest.raises(ValueError, match=r"data.split=validation holds none of 1 image; set data.validation, now 0.001"):
        taken(["a"], split="validation", validation=0.001)
