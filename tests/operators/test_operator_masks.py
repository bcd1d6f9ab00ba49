"""Masks of other shapes than a box."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from operator_cases import generators, random_images
from scipy.ndimage import distance_transform_edt

from diffusion_priors.operators.masks import DeadLines, EveryOtherPixel, Half, Outpaint, Strokes, distance


def known(operator, x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """(B, H, W) bool, after a check that y is x where it is known and 0 elsewhere, in every channel."""
    operator.draw(x, generators(range(len(x)), seed))
    y, mask = operator(x), operator.mask.expand_as(x) > 0.0
    assert torch.equal(y, torch.where(mask, x, 0.0))
    return mask[:, 0]


@pytest.mark.parametrize(
    ("size", "sides", "rows", "columns"),
    [(None, (8, 12), (2, 6), (3, 9)), (None, (9, 5), (2, 6), (1, 3)), ((3, 5), (9, 5), (3, 6), (0, 5)), ((8, 2), (8, 12), (0, 8), (5, 7))],
)
def test_only_the_middle_is_known(size, sides, rows, columns):
    expected = torch.zeros(sides, dtype=torch.bool)
    expected[slice(*rows), slice(*columns)] = True
    assert torch.equal(known(Outpaint(size), random_images(2, 3, *sides)), expected.expand(2, *sides))


@pytest.mark.parametrize(
    ("missing", "gone"), [("top", np.s_[:3]), ("bottom", np.s_[4:]), ("left", np.s_[:, :5]), ("right", np.s_[:, 5:])], ids=str
)
def test_the_half_at_one_side_is_missing(missing, gone):
    """Of seven rows three are missing."""
    expected = torch.ones(7, 10, dtype=torch.bool)
    expected[gone] = False
    assert torch.equal(known(Half(missing), random_images(1, 2, 7, 10))[0], expected)


@pytest.mark.parametrize("stride", [None, (2, 2), (2, 1), (1, 3), (4, 3)])
def test_pixels_are_known_in_a_regular_pattern(stride):
    found = known(EveryOtherPixel(stride), random_images(1, 2, 7, 10))[0]
    for i in range(7):
        for j in range(10):
            assert found[i, j] == ((i + j) % 2 == 0 if stride is None else i % stride[0] == j % stride[1] == 0)


@pytest.mark.parametrize(("rows", "columns", "gone"), [(0.125, 0.125, (2, 3)), (0.5, 0.0, (8, 0)), (0.0, 0.3, (0, 7))])
def test_whole_lines_are_dead(rows, columns, gone):
    """Exactly round(share · side) of them in every image."""
    for mask in known(DeadLines(rows, columns), random_images(20, 1, 16, 24)):
        dead_rows, dead_columns = ~mask.any(1), ~mask.any(0)
        assert (int(dead_rows.sum()), int(dead_columns.sum())) == gone
        assert torch.equal(mask, ~(dead_rows[:, None] | dead_columns))


def test_every_line_dies_equally_often():
    """Each row is dead with probability 1/8, within five standard errors."""
    n = 2000
    dead = (~known(DeadLines(0.125, 0.0), random_images(n, 1, 16, 4)).any(2)).double().mean(0)
    assert ((dead - 0.125).abs() <= 5.0 * (0.125 * 0.875 / n) ** 0.5).all()


@pytest.mark.parametrize(("missing", "width"), [(0.1, 0.08), (0.25, 0.08), (0.5, 0.2)])
@pytest.mark.parametrize("sides", [(64, 64), (48, 80)])
def test_strokes_cover_their_share(missing, width, sides):
    """At least `missing`, and no more than one stroke above it: its steps of at most a quarter of the side, as wide as the brush."""
    masks = known(Strokes(missing, width, turns=3), random_images(12, 1, *sides))
    share = 1.0 - masks.double().mean((1, 2))
    brush, side = width * min(sides), min(sides)
    most = (3 * 0.25 * side * (brush + 2.0) + np.pi * (brush / 2.0 + 2.0) ** 2) / (sides[0] * sides[1])
    assert ((share >= missing) & (share <= missing + most)).all()
    assert len({mask.numpy().tobytes() for mask in masks}) == 12


def test_a_stroke_is_as_wide_as_the_brush():
    """A missing pixel lies at most the brush's radius of 6 from a known one or the edge of the image; inside, as far."""
    operator = Strokes(missing=0.001, width=0.125, turns=1)
    masks = known(operator, random_images(20, 1, 96, 128))
    depths = [distance_transform_edt(np.pad(~mask.numpy(), 1)).max() for mask in masks]
    assert 5.0 < max(depths) <= 6.0 + 1.0


def test_the_distance_from_a_path_is_that_of_its_nearest_point():
    """Against the distance from many points of the path."""
    path = np.array([[2.0, 3.0], [9.5, 14.0], [9.5, 14.0], [1.0, 19.0]])
    share = np.linspace(0.0, 1.0, 4001)[:, None]
    points = np.concatenate([start + share * (stop - start) for start, stop in pairwise(path)])
    pixels = np.stack(np.mgrid[:12, :21], -1).reshape(-1, 1, 2)
    expected = np.sqrt(((pixels - points) ** 2).sum(-1).min(1)).reshape(12, 21)
    np.testing.assert_allclose(distance(path, 12, 21), expected, atol=3e-3)


def test_strokes_go_everywhere():
    """Over many images every pixel is covered at times, at the edges as well; no pixel always."""
    share = (~known(Strokes(), random_images(400, 1, 24, 32))).double().mean(0)
    assert share.min() > 0.02 and share.max() < 0.6


@pytest.mark.parametrize(
    ("make", "seen", "key"),
    [
        (lambda: Outpaint((0, 4)), "[0, 4]", "size"),
        (lambda: Half("middle"), "got middle", "missing"),
        (lambda: EveryOtherPixel((1, 1)), "[1, 1]", "stride"),
        (lambda: EveryOtherPixel((0, 2)), "[0, 2]", "stride"),
        (lambda: DeadLines(rows=1.0), "missing rows must be at least 0 and below 1, got 1.0", "rows"),
        (lambda: DeadLines(columns=-0.1), "columns must be at least 0 and below 1, got -0.1", "columns"),
        (lambda: Strokes(missing=1.0), "got 1.0", "missing"),
        (lambda: Strokes(width=0.0), "got 0.0", "width"),
        (lambda: Strokes(turns=0), "turns=0", "turns"),
    ],
)
def test_invalid_settings_are_refused(make, seen, key):
    with pytest.raises(ValueError, match=re.escape(seen)) as refusal:
        make()
    assert f"set operator.{key}" in str(refusal.value)


@pytest.mark.parametrize(
    ("operator", "seen"),
    [
        (Outpaint((9, 4)), "known box of 9 x 4 leaves nothing missing around it in a 8 x 6"),
        (Outpaint((8, 6)), "known box of 8 x 6 leaves nothing missing"),
        (DeadLines(0.01, 0.01), "leave no line missing of a 8 x 6"),
        (DeadLines(0.99, 0.0), "leave no line known of a 8 x 6"),
        (Strokes(0.99, 0.9), "left nothing known of a 8 x 6 image; lower operator.missing"),
    ],
)
def test_masks_that_say_nothing_are_refused(operator, seen):
    with pytest.raises(ValueError, match=re.escape(seen)):
        for seed in range(20):
            operator.draw(random_images(1, 1, 8, 6), generators([0], seed))


@pytest.mark.parametrize(("operator", "sides"), [(Half("top"), (1, 5)), (EveryOtherPixel(), (1, 1)), (EveryOtherPixel((3, 1)), (1, 5))])
def test_an_image_too_small_for_its_mask_is_refused(operator, sides):
    with pytest.raises(ValueError, match=r"set operator\.(missing|stride)"):
        operator.draw(random_images(1, 1, *sides), generators([0]))
