"""Grids: which of the schedule's levels a run walks, against their formulas and diffusers' timesteps."""

from fractions import Fraction
from itertools import pairwise
from math import floor
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from diffusion_priors.diffusion.grids import Leading, Linspace, Quadratic, Trailing
from diffusion_priors.diffusion.levels import CLEAN
from diffusion_priors.diffusion.schedules import Linear

YAMLS = sorted((Path(__file__).parents[2] / "conf" / "grid").glob("*.yaml"))
STEPS = (1, 2, 3, 7, 10, 20, 50, 100, 250, 333, 500, 999, 1000)
MANY = sorted({*STEPS, *range(4, 1001, 29), 25, 27, 40, 48, 61, 103, 125, 200})  # 27 and 48 hold ties, 61 and 103 diffusers' extra step
LEVELS = Linear().levels
UNIFORM = {"linspace": Linspace, "leading": Leading, "trailing": Trailing}


def walked(grid) -> list[int]:
    """The t of a grid's noisy levels."""
    return [level.t for level in grid(LEVELS)[:-1]]


@pytest.fixture(params=YAMLS, ids=lambda path: path.stem)
def config(request):
    return OmegaConf.load(request.param)


@pytest.mark.parametrize("steps", STEPS)
def test_a_grid_descends_strictly_through_the_schedule_to_the_clean_end(config, steps):
    levels = instantiate(config, steps=steps)(LEVELS)
    assert levels[-1] is CLEAN
    assert (CLEAN.alpha, CLEAN.sigma) == (1.0, 0.0)
    noisy = levels[:-1]
    assert 1 <= len(noisy) <= steps
    assert all(level is LEVELS[level.t] for level in noisy)  # the schedule's own levels, not made anew
    assert all(before.t > after.t for before, after in pairwise(noisy))
    ratios = [level.sigma / level.alpha for level in levels]
    assert all(before > after for before, after in pairwise(ratios))


@pytest.mark.parametrize("name", UNIFORM)
def test_uniform_grids_take_exactly_the_steps_asked_for(name):
    for steps in MANY:
        assert len(walked(UNIFORM[name](steps))) == steps


@pytest.mark.parametrize("name", UNIFORM)
def test_every_level_is_kept_where_steps_is_the_length_of_the_schedule(name):
    assert walked(UNIFORM[name](1000)) == list(range(999, -1, -1))


def test_yaml_defaults_fit_the_default_schedule(config):
    assert instantiate(config)(LEVELS)[0].t == 999


@pytest.mark.parametrize("steps", [n for n in STEPS if n > 1])
def test_which_ends_are_kept(steps):
    assert (walked(Linspace(steps))[0], walked(Linspace(steps))[-1]) == (999, 0)
    assert (walked(Quadratic(steps))[0], walked(Quadratic(steps))[-1]) == (999, 0)
    assert walked(Trailing(steps))[0] == 999
    assert walked(Leading(steps))[-1] == 0


def exact(name: str, i: int, steps: int) -> Fraction:
    """The formula of the class, before rounding, for the i-th level from the least noisy."""
    if name == "linspace":
        return Fraction(i * 999, steps - 1)
    if name == "trailing":
        return Fraction((i + 1) * 1000, steps) - 1
    return Fraction(i * (1000 // steps))


@pytest.mark.parametrize("name", UNIFORM)
def test_uniform_grids_are_the_nearest_indices_to_their_formula(name):
    for steps in MANY[1:]:
        for i, t in enumerate(reversed(walked(UNIFORM[name](steps)))):
            assert abs(t - exact(name, i, steps)) <= Fraction(1, 2)


@pytest.mark.parametrize("name", UNIFORM)
def test_timesteps_are_those_of_diffusers(name):
    """With its steps_offset at 0. Where the formula falls half-way between two indices, float error decides diffusers' choice.

    Left out: one step of linspace (diffusers walks the least noisy level, which cannot start from noise) and those
    numbers of trailing steps for which diffusers returns one step too many, at −1.
    """
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(timestep_spacing=name, steps_offset=0)
    compared = 0
    for steps in MANY[1:] if name == "linspace" else MANY:
        scheduler.set_timesteps(steps)
        theirs = scheduler.timesteps.tolist()
        if len(theirs) != steps:
            assert name == "trailing" and theirs[-1] == -1
            continue
        compared += 1
        for i, (t, other) in enumerate(zip(reversed(walked(UNIFORM[name](steps))), reversed(theirs), strict=True)):
            value = exact(name, i, steps)
            if value - floor(value) != Fraction(1, 2):
                assert t == other, (steps, i)
    assert compared > 40


def test_a_single_step_starts_from_the_noisiest_level():
    assert [walked(grid(1)) for grid in (Linspace, Trailing, Quadratic)] == [[999]] * 3
    assert walked(Leading(1)) == [0]  # by its formula, as in diffusers


def test_quadratic_follows_its_formula():
    """t_i = (T−1)(i/(n−1))²."""
    t = walked(Quadratic(10))
    assert t[::-1] == [round(999 * (i / 9) ** 2) for i in range(10)]
    gaps = [before - after for before, after in pairwise(t)]
    assert gaps == sorted(gaps, reverse=True)  # denser where noise is low


def test_quadratic_walks_a_level_once_where_small_t_collide():
    t = walked(Quadratic(1000))
    assert len(t) == len(set(t)) < 1000


def test_a_short_schedule_is_respaced_by_its_own_length():
    levels = Linear(steps=8).levels
    for grid in (Linspace, Leading, Trailing):
        assert [level.t for level in grid(8)(levels)[:-1]] == list(range(7, -1, -1))
    assert [level.t for level in Leading(2)(levels)[:-1]] == [4, 0]
    assert [level.t for level in Trailing(2)(levels)[:-1]] == [7, 3]


@pytest.mark.parametrize("steps", [0, -1])
def test_less_than_one_step_is_refused(config, steps):
    with pytest.raises(Exception, match=f"steps={steps}") as caught:
        instantiate(config, steps=steps)
    assert isinstance(caught.value.__cause__, ValueError)


def test_more_steps_than_levels_are_refused(config):
    with pytest.raises(ValueError, match=r"steps=1001 .* 1000 levels .* grid\.steps=1000"):
        instantiate(config, steps=1001)(LEVELS)
