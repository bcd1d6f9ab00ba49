"""Random numbers per image: the draws of image b depend on its own labels only."""

import itertools

import numpy as np
import pytest
import torch

from diffusion_priors.diffusion.image_random import ImageRandom, image_generator

SHAPE = (3, 16, 16)


def draws(labels: list[tuple], rounds: int = 3) -> list[torch.Tensor]:
    """`rounds` draws for a batch of these images, image by image."""
    noise = ImageRandom([image_generator(*label) for label in labels])
    like = torch.zeros(len(labels), *SHAPE)
    return list(torch.stack([noise.normal(like) for _ in range(rounds)], dim=1))


IMAGES = [(0, name, "sampling") for name in ("a", "b", "c", "d")]


def test_an_image_draws_the_same_alone_and_in_any_batch():
    together = draws(IMAGES)
    for image, drawn in zip(IMAGES, together, strict=True):
        assert torch.equal(draws([image])[0], drawn)
    for first, second in itertools.permutations(range(4), 2):
        pair = draws([IMAGES[first], IMAGES[second]])
        assert torch.equal(pair[0], together[first]) and torch.equal(pair[1], together[second])


def test_successive_draws_differ():
    (drawn,) = draws(IMAGES[:1])
    assert not torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[1], drawn[2])


def test_a_draw_is_that_of_numpy_s_generator_of_the_image():
    generator = image_generator(*IMAGES[2])
    expected = torch.stack([torch.from_numpy(generator.standard_normal(SHAPE, dtype=np.float32)) for _ in range(3)])
    assert torch.equal(draws(IMAGES)[2], expected)


def test_the_global_generator_is_neither_read_nor_advanced():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = draws(IMAGES)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert all(torch.equal(a, b) for a, b in zip(first, draws(IMAGES), strict=True))


DISTINCT = [
    (0, "a", "bc"),
    (0, "ab", "c"),
    (0, "abc"),
    (0, "abc", ""),
    (0, "", "abc"),
    (0, "a", "sampling"),
    (0, "a", "measurement"),
    (0, "a", 0, "sampling"),
    (0, "a", 1, "sampling"),
    (1, "a", 0, "sampling"),
    (10, "a"),
    (1, "0", "a"),
    (1, 0, 0),
    (10, 0),
    (100,),
    (-1, "a"),
    (2**40, "ä"),
]


def test_different_seeds_and_labels_give_unrelated_streams():
    """Also where the concatenated labels are the same text."""
    streams = [torch.from_numpy(image_generator(*label).standard_normal(4096)) for label in DISTINCT]
    correlation = torch.corrcoef(torch.stack(streams)) - torch.eye(len(streams), dtype=torch.float64)
    assert correlation.abs().max() < 5 / 4096**0.5


def test_draws_are_standard_normal_pixel_by_pixel():
    """Mean 0, variance 1, no skew, kurtosis 3, no correlation between neighbours or channels: each within 5 standard errors."""
    z = ImageRandom([image_generator(0, i) for i in range(64)]).normal(torch.zeros(64, 3, 32, 32, dtype=torch.float64))
    n = z.numel()
    for moment, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**moment).mean() - expected) < 5 * (variance / n) ** 0.5
    for shifted, here in ((z[..., 1:], z[..., :-1]), (z[:, 1:], z[:, :-1]), (z[1:], z[:-1])):
        assert abs((shifted * here).mean()) < 5 / here.numel() ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_has_the_type_of_the_images(dtype):
    assert ImageRandom([image_generator(0)]).normal(torch.zeros(1, 2, dtype=dtype)).dtype is dtype


def test_an_image_without_a_generator_is_refused():
    with pytest.raises(ValueError, match="shorter"):
        ImageRandom([image_generator(0)]).normal(torch.zeros(2, *SHAPE))
