"""Counting levels: on the schedule that counts them, between its levels, and for other schedules of the same noise."""

from itertools import pairwise
from math import sqrt

import numpy as np
import pytest

from diffusion_priors.diffusion.grids import Karras, Linspace, Quadratic
from diffusion_priors.diffusion.levels import CLEAN, NoiseLevel
from diffusion_priors.diffusion.reference_levels import levels_crossed, reference_index, state_scale
from diffusion_priors.diffusion.schedules import VE, Cosine, Flow, Linear

SCHEDULES = [Linear(), Cosine(), VE(), Flow(t_max=0.999)]


def test_every_level_of_the_linear_schedule_is_one_from_the_next():
    """Exactly: the index is a whole number, and the noise-free end is one below the first level."""
    levels = [CLEAN, *Linear().table]
    assert [reference_index(level) for level in levels] == list(range(-1, 1000))
    assert all(levels_crossed(then, now) == 1.0 for now, then in pairwise(levels))


def test_between_two_levels_the_index_is_linear_in_the_logarithm_of_the_noise():
    bars = np.cumprod(1.0 - np.linspace(1e-4, 2e-2, 1000))
    ratios = np.sqrt(1.0 / bars - 1.0)
    for wanted in np.geomspace(ratios[0], ratios[-1], 57)[1:-1]:
        level = NoiseLevel(0, 1.0, wanted)
        assert reference_index(level) == pytest.approx(np.interp(np.log(wanted), np.log(ratios), np.arange(1000)), rel=1e-9)


def test_the_index_rises_with_the_noise_and_ends_at_the_noisiest_level():
    ratios = np.geomspace(1e-6, 1e3, 500)
    indices = [reference_index(NoiseLevel(0, 1.0, ratio)) for ratio in ratios]
    assert all(before <= after for before, after in pairwise(indices))
    assert indices[0] == pytest.approx(-1.0, abs=1e-3)
    assert indices[-1] == reference_index(NoiseLevel(1.0, 0.0, 1.0)) == 999.0


@pytest.mark.parametrize("grid", [Linspace(7), Linspace(100), Quadratic(40), Karras(25)], ids=lambda g: type(g).__name__)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.kind)
def test_a_walk_crosses_the_same_levels_however_it_is_divided(schedule, grid):
    levels = grid(schedule)
    crossed = [levels_crossed(now, then) for now, then in pairwise(levels)]
    assert min(crossed) >= 0.0
    assert sum(crossed) == pytest.approx(levels_crossed(levels[0], CLEAN), rel=1e-12)


def test_the_scale_of_a_state():
    """1 for variance preserving schedules, √(1 + σ²) for VE."""
    assert state_scale(Linear().table[300]) == pytest.approx(1.0, rel=1e-15)
    assert state_scale(VE().level(3.0)) == pytest.approx(sqrt(10.0))
    assert state_scale(CLEAN) == 1.0
