"""Ids: one component of a path each, never shared, and a function of the image's own path alone."""

from __future__ import annotations

import os
from pathlib import PurePath
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest

from diffusion_priors.images.formats import SUFFIXES
from diffusion_priors.images.ids import LONGEST, image_id
from diffusion_priors.runs.ids import check_id


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("face.png", "face"),
        ("face.jpg", "face.jpg"),
        ("face.PNG", "face.PNG"),
        ("face.jpg.png", "face.jpg.png"),
        ("face.png.png", "face.png.png"),
        ("two.half.png", "two.half"),
        ("photo", "photo"),
        ("sub/face.png", "sub~face"),
        ("a/b/c.tif", "a~b~c.tif"),
        ("a~b.png", "a%7Eb"),
        ("100%.png", "100%25"),
        ("a b, c=d [1].png", "a b, c=d [1]"),
        ("größe 漢字.webp", "größe 漢字.webp"),
        (".png", "%2Epng"),
        ("..png", "%2E"),
        ("...png", "%2E."),
        (".hidden.png", "%2Ehidden"),
        ("a\nb\x1b.png", "a%0Ab%1B"),
        ("a\\b:c.png", "a%5Cb%3Ac"),
    ],
)
def test_the_id_is_the_path_in_one_component(path, expected):
    assert image_id(PurePath(path)) == expected
    check_id(expected)


def test_bytes_that_are_no_text_are_written_out():
    assert image_id(PurePath(os.fsdecode(b"caf\xe9/\xff.png"))) == "caf%E9~%FF"


def path_of(name: str) -> str:
    """The inverse of image_id."""
    path = os.fsdecode(unquote_to_bytes(name.replace("~", "/")))
    return path if path.lower().endswith(tuple(SUFFIXES)) else f"{path}.png"


def test_every_path_has_an_id_of_its_own_that_gives_it_back():
    """Paths of odd pieces: no two share an id, and each id is a valid name."""
    random = np.random.default_rng(0)
    pieces = ["a", "b", "~", "%", "7E", "/", ".", "..", ".png", ".jpg", "é", "\udcff", "\\", "\n", " ", "~~", "%2F", "A"]
    paths = set()
    while len(paths) < 20_000:
        text = "".join(random.choice(pieces) for _ in range(random.integers(1, 9)))
        path = PurePath(f"{text.strip('/')}{random.choice(['.png', '.JPG', '.gif'])}")
        if ".." not in path.parts and not path.is_absolute() and path.name:
            paths.add(path)
    ids = {image_id(path): path for path in paths}
    assert len(ids) == len(paths)
    for name, path in ids.items():
        check_id(name)
        assert path_of(name) == str(path)


@pytest.mark.parametrize("part", ["x" * 250, "漢" * 80, "%" * 240, "a/" * 1500 + "b"])
def test_a_long_path_ends_in_a_hash(part):
    """File systems hold names of 255 bytes; a suffix and a temporary name are added to an id."""
    one, two = (image_id(PurePath(f"{part}{end}.png")) for end in ("", "c"))
    assert one != two and len(one.encode()) <= LONGEST and "~~" in one and len(LONGEST * "x" + ".safetensors") + 20 < 255
    check_id(one)
    assert image_id(PurePath(f"{part}.png")) == one
