"""Inpainting: where the missing pixels lie."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from operator_cases import generators, random_images
from PIL import Image

from diffusion_priors.images.fit import Crop, Exact, Stretch
from diffusion_priors.operators.inpainting import InpaintBox, InpaintMask, InpaintRandom


def holes(operator, x, seed: int = 0) -> torch.Tensor:
    """Missing pixels (B, H, W), after a check that y is 0 there and x elsewhere."""
    operator.draw(x, generators(range(len(x)), seed))
    y = operator(x)
    missing = operator.support(y).expand_as(x) == 0.0
    assert torch.equal(missing, missing[:, :1].expand_as(missing)), "the channels share the mask"
    assert (y[missing] == 0.0).all() and torch.equal(y[~missing], x[~missing])
    return missing[:, 0]


def rectangle(shape: tuple[int, ...], top: int, left: int, height: int, width: int) -> torch.Tensor:
    expected = torch.zeros(shape, dtype=torch.bool)
    expected[..., top : top + height, left : left + width] = True
    return expected


@pytest.mark.parametrize("sides", [(8, 8), (9, 14), (16, 7), (2, 1), (5, 4)])
def test_a_box_covers_half_the_sides_in_the_middle_by_default(sides):
    x = random_images(2, 3, *sides)
    height, width = max(1, sides[0] // 2), max(1, sides[1] // 2)
    expected = rectangle((2, *sides), (sides[0] - height) // 2, (sides[1] - width) // 2, height, width)
    assert torch.equal(holes(InpaintBox(), x), expected)


@pytest.mark.parametrize(("size", "place"), [((3, 5), (0, 0)), ((3, 5), (6, 9)), ((1, 1), (4, 2)), ((9, 2), (0, 12)), ((2, 14), (7, 0))])
def test_a_box_has_its_size_and_stands_at_its_place(size, place):
    x = random_images(2, 3, 9, 14)
    assert torch.equal(holes(InpaintBox(size, place), x), rectangle((2, 9, 14), *place, *size))


def test_a_box_without_a_place_stands_in_the_middle():
    assert torch.equal(holes(InpaintBox((3, 4)), random_images(1, 1, 9, 14)), rectangle((1, 9, 14), 3, 5, 3, 4))


@pytest.mark.parametrize(("size", "margin"), [((3, 5), 0), ((3, 5), 2), ((5, 10), 2), (None, 1)])
def test_a_random_box_keeps_its_size_and_its_margin(size, margin):
    sides = (9, 14)
    height, width = size or (4, 7)
    operator = InpaintBox(size, random_place=True, margin=margin)
    assert operator.random
    for hole in holes(operator, random_images(64, 1, *sides)):
        top, left = hole.nonzero().amin(0).tolist()
        assert torch.equal(hole, rectangle(sides, top, left, height, width))
        assert margin <= top <= sides[0] - height - margin and margin <= left <= sides[1] - width - margin


def test_a_random_box_is_equally_likely_everywhere():
    """Each of the 3 × 4 places occurs n/12 times, within five standard errors of a binomial."""
    n = 1200
    found = holes(InpaintBox((3, 5), random_place=True, margin=2), random_images(n, 1, 9, 12))
    places, counts = torch.stack([hole.nonzero().amin(0) for hole in found]).unique(dim=0, return_counts=True)
    assert places.tolist() == [[top, left] for top in (2, 3, 4) for left in (2, 3, 4, 5)]
    assert ((counts - n / 12).abs() <= 5.0 * (n * (1 / 12) * (11 / 12)) ** 0.5).all()


def test_a_random_box_belongs_to_the_image_and_the_seed():
    x = random_images(4, 1, 32, 40)
    drawn = [holes(InpaintBox((4, 4), random_place=True), x, seed) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert len({tuple(hole.nonzero().amin(0).tolist()) for hole in drawn[0]}) > 1


@pytest.mark.parametrize("keep", [0.08, 0.3, 0.92])
def test_random_pixels_are_known_with_probability_keep(keep):
    """Per image within five standard errors; neighbours and images are independent."""
    sides = (192, 256)
    n = sides[0] * sides[1]
    known = (~holes(InpaintRandom(keep), random_images(2, 2, *sides))).double()
    error = (keep * (1.0 - keep) / n) ** 0.5
    assert ((known.mean((1, 2)) - keep).abs() <= 5.0 * error).all()
    centred = (known - keep) / (keep * (1.0 - keep)) ** 0.5
    products = (centred[:, 1:] * centred[:, :-1], centred[..., 1:] * centred[..., :-1], centred[0] * centred[1])
    assert all(product.mean().abs() <= 5.0 / product.numel() ** 0.5 for product in products)


def test_a_mask_image_is_known_where_it_is_brighter_than_mid_grey(tmp_path):
    grey = np.array([[0, 1, 127, 128], [254, 255, 100, 200]], dtype=np.uint8)
    path = tmp_path / "mask.png"
    Image.fromarray(grey).save(path)
    expected = torch.tensor([[True, True, True, False], [False, False, True, False]])
    assert torch.equal(holes(InpaintMask(str(path)), random_images(2, 3, 2, 4)), expected.expand(2, 2, 4))
    Image.fromarray(grey).convert("RGB").save(path)
    assert torch.equal(holes(InpaintMask(str(path)), random_images(2, 3, 2, 4)), expected.expand(2, 2, 4))
    Image.fromarray(grey > 127).save(path)
    assert torch.equal(holes(InpaintMask(str(path)), random_images(2, 3, 2, 4)), expected.expand(2, 2, 4))


def test_a_mask_image_of_sixteen_bits_has_its_mid_grey_at_half_the_range(tmp_path):
    grey = np.array([[0, 256, 20_000, 32_000], [33_500, 40_000, 65_535, 128]], dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "mask.png")
    found = holes(InpaintMask(str(tmp_path / "mask.png")), random_images(1, 1, 2, 4))
    assert found[0].tolist() == [[True, True, True, True], [False, False, False, True]]


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        ({"size": (0, 4)}, "[0, 4]"),
        ({"size": (4, -1)}, "[4, -1]"),
        ({"margin": -2}, "-2"),
        ({"place": (1, 2), "random_place": True}, "[1, 2]"),
    ],
)
def test_invalid_box_settings_are_refused(settings, seen):
    with pytest.raises(ValueError, match=re.escape(seen)) as refusal:
        InpaintBox(**settings)
    assert "operator." in str(refusal.value)


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        ({"size": (9, 14)}, "9 x 14 box leaves nothing known of a 9 x 14"),
        ({"size": (10, 20), "random_place": True}, "10 x 20 box leaves nothing known"),
        ({"size": (10, 3)}, "10 x 3 box"),
        ({"size": (10, 3), "random_place": True}, "10 x 3 box"),
        ({"size": (3, 5), "place": (7, 0)}, "[7, 0] leaves the 9 x 14"),
        ({"size": (3, 5), "place": (0, 10)}, "[0, 10] leaves the 9 x 14"),
        ({"size": (3, 5), "place": (-1, 0)}, "[-1, 0] leaves"),
        ({"size": (6, 5), "random_place": True, "margin": 2}, "margin 2"),
        ({"size": (3, 11), "random_place": True, "margin": 2}, "3 x 11 box with margin 2 does not fit a 9 x 14"),
    ],
)
def test_a_box_that_does_not_fit_the_images_is_refused(settings, seen):
    with pytest.raises(ValueError, match=re.escape(seen)) as refusal:
        InpaintBox(**settings).draw(random_images(1, 1, 9, 14), generators([0]))
    assert "operator." in str(refusal.value)


def test_a_box_on_an_image_of_one_pixel_is_refused():
    with pytest.raises(ValueError, match="1 x 1 box leaves nothing known"):
        InpaintBox().draw(random_images(1, 1, 1, 1), generators([0]))


@pytest.mark.parametrize("keep", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_probability_outside_0_and_1_is_refused(keep):
    with pytest.raises(ValueError, match=rf"{keep}; set operator\.keep"):
        InpaintRandom(keep)


@pytest.mark.parametrize(("grey", "word"), [(255, "missing"), (0, "known"), (127, "known"), (128, "missing")])
def test_a_mask_with_nothing_missing_or_nothing_known_is_refused(grey, word, tmp_path):
    Image.new("L", (4, 3), grey).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=rf"mask\.png has nothing {word}"):
        InpaintMask(str(tmp_path / "mask.png"))


@pytest.mark.parametrize("content", [None, b"", b"not an image"])
def test_a_mask_that_cannot_be_read_is_refused(content, tmp_path):
    if content is not None:
        (tmp_path / "mask.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read the mask .*mask\.png.*operator\.path"):
        InpaintMask(str(tmp_path / "mask.png"))


def test_a_mask_of_another_size_is_refused(tmp_path):
    Image.fromarray(np.eye(4, 6, dtype=np.uint8) * 255).save(tmp_path / "mask.png")
    operator = InpaintMask(str(tmp_path / "mask.png"))
    with pytest.raises(ValueError, match=r"mask\.png is 4 x 6 and the images are 6 x 4"):
        operator.draw(random_images(1, 1, 6, 4), generators([0]))


# A mask of the size of the photo


def following(known: np.ndarray, folder, fit) -> InpaintMask:
    Image.fromarray(known.astype(np.uint8) * 255).save(folder / "mask.png")
    operator = InpaintMask(str(folder / "mask.png"))
    operator.fit = fit
    return operator


@pytest.mark.parametrize(("shape", "size"), [((40, 60), (8, 8)), ((37, 51), (8, 12)), ((8, 8), (20, 30)), ((5, 60), (8, 8))])
@pytest.mark.parametrize("fit", [Crop(), Stretch()], ids=["crop", "stretch"])
def test_a_pixel_is_known_where_nothing_missing_of_the_photo_enters_it(fit, shape, size, tmp_path):
    """Whatever the missing pixels of the photo are painted with, the known pixels of the small image stay the same."""
    random = np.random.default_rng(0)
    known = np.ones(shape, dtype=bool)
    known[shape[0] // 3 : shape[0] // 2 + 1, shape[1] // 3 : shape[1] // 2 + 1] = False
    operator = following(known, tmp_path, fit).draw(random_images(1, 3, *size), generators([0]))
    assert operator.file_size(size) == shape and 0 < operator.mask.sum() < size[0] * size[1]
    photo = random.uniform(0.3, 0.7, (*shape, 3)).astype(np.float32)
    painted = np.where(known[..., None], photo, random.uniform(0.3, 0.7, (*shape, 3))).astype(np.float32)
    differs = np.abs(fit(photo, size) - fit(painted, size)).max(axis=-1) > 1e-7
    assert not (differs & operator.mask[0, 0].bool().numpy()).any()
    assert np.array_equal(differs, ~operator.mask[0, 0].bool().numpy())  # and nothing else is missing


def test_a_mask_follows_the_crop(tmp_path):
    """The left and the right quarter of a wide photo are cut off, with the part of the mask there."""
    known = np.ones((16, 32), dtype=bool)
    known[:, :8] = False
    known[4:8, 12:16] = False
    operator = following(known, tmp_path, Crop()).draw(random_images(1, 1, 8, 8), generators([0]))
    assert torch.equal(operator.mask[0, 0] == 0, rectangle((8, 8), 2, 2, 2, 2))


@pytest.mark.parametrize(("edge", "word"), [(np.s_[:, :4], "missing"), (np.s_[:, 4:28], "known")])
def test_a_mask_that_says_nothing_after_the_crop_is_refused(edge, word, tmp_path):
    known = np.ones((16, 32), dtype=bool)
    known[edge] = False
    with pytest.raises(ValueError, match=rf"mask\.png has nothing {word} once it is brought to 8 x 8 as the images are"):
        following(known, tmp_path, Crop()).draw(random_images(1, 1, 8, 8), generators([0]))


def test_a_mask_cannot_follow_a_fit_that_changes_no_size(tmp_path):
    with pytest.raises(ValueError, match=r"mask\.png is not of the images' size: it is 4 x 6, wanted is 8 x 8; use fit=crop"):
        following(np.eye(4, 6), tmp_path, Exact()).draw(random_images(1, 1, 8, 8), generators([0]))
