"""Grids: which of the schedule's levels a run walks, against their formulas and diffusers' timesteps."""

from fractions import Fraction
from itertools import pairwise
from math import exp, floor, log
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from diffusion_priors.diffusion.grids import Karras, Leading, Linspace, LogSNR, Quadratic, RatioGrid, Trailing
from diffusion_priors.diffusion.levels import CLEAN
from diffusion_priors.diffusion.schedules import VE, Flow, Linear

YAMLS = sorted((Path(__file__).parents[2] / "conf" / "grid").glob("*.yaml"))
STEPS = (1, 2, 3, 7, 10, 20, 50, 100, 250, 333, 500, 999, 1000)
MANY = sorted({*STEPS, *range(4, 1001, 29), 25, 27, 40, 48, 61, 103, 125, 200})  # 27 and 48 hold ties, 61 and 103 diffusers' extra step
SCHEDULE = Linear()
LEVELS = SCHEDULE.table
UNIFORM = {"linspace": Linspace, "leading": Leading, "trailing": Trailing}


def walked(grid) -> list[int]:
    """The t of a grid's noisy levels."""
    return [level.t for level in grid(SCHEDULE)[:-1]]


@pytest.fixture(params=YAMLS, ids=lambda path: path.stem)
def config(request):
    return OmegaConf.load(request.param)


def test_a_grid_descends_strictly_through_the_schedule_to_the_clean_end(config):
    assert (CLEAN.alpha, CLEAN.sigma) == (1.0, 0.0)
    for steps in STEPS:
        check_descent(instantiate(config, steps=steps)(SCHEDULE), steps)


def check_descent(levels, steps):
    assert levels[-1] is CLEAN
    noisy = levels[:-1]
    assert 1 <= len(noisy) <= steps
    assert all(level is LEVELS[level.t] for level in noisy)  # the schedule's own levels
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
    assert instantiate(config)(SCHEDULE)[0].t == 999


def test_which_ends_are_kept():
    for steps in STEPS[1:]:
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


def space_timesteps(total: int, steps: int) -> set[int]:
    """The loop of guided-diffusion's function of this name, for one section."""
    stride = 1 if steps <= 1 else (total - 1) / (steps - 1)
    current, taken = 0.0, []
    for _ in range(steps):
        taken.append(round(current))
        current += stride
    return set(taken)


@pytest.mark.parametrize("total", [1000, 4000, 50])
def test_linspace_is_the_respacing_of_guided_diffusion_for_every_number_of_steps(total):
    """Also where i (T−1)/(n−1) lies half-way between two indices, and the rounding of its running sum decides."""
    differing = [n for n in range(2, total + 1) if set(Linspace(n).indices(total)) != space_timesteps(total, n)]
    assert differing == []


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
    schedule = Linear(8, 1e-4, 2e-2)
    for grid in (Linspace, Leading, Trailing):
        assert [level.t for level in grid(8)(schedule)[:-1]] == list(range(7, -1, -1))
    assert [level.t for level in Leading(2)(schedule)[:-1]] == [4, 0]
    assert [level.t for level in Trailing(2)(schedule)[:-1]] == [7, 3]


@pytest.mark.parametrize("steps", [0, -1])
def test_less_than_one_step_is_refused(config, steps):
    with pytest.raises(Exception, match=f"steps={steps}") as caught:
        instantiate(config, steps=steps)
    assert isinstance(caught.value.__cause__, ValueError)


def test_more_steps_than_levels_are_refused(config):
    if isinstance(instantiate(config), RatioGrid):
        pytest.skip("it takes the nearest levels, each once")
    with pytest.raises(ValueError, match=r"steps=1001 .* 1000 levels .* grid\.steps=1000"):
        instantiate(config, steps=1001)(SCHEDULE)


# Continuous schedules, and grids that choose values of σ/α


@pytest.mark.parametrize("schedule", [VE(), Flow(), Flow(t_max=0.9)], ids=["ve", "flow", "flow to 0.9"])
def test_index_grids_take_a_continuous_schedule_for_equal_distances_of_t(schedule):
    """The noisiest level first; 1000 steps are all of its thousand levels."""
    levels = Linspace(5)(schedule)
    times = [level.t for level in levels[:-1]]
    assert times[0] == schedule.t_max
    assert times[-1] == schedule.t_min
    gaps = [before - after for before, after in pairwise(times)]
    assert max(gaps) - min(gaps) < 2e-3 * (schedule.t_max - schedule.t_min)
    assert len(Linspace(1000)(schedule)) == 1001
    assert levels[-1] is CLEAN


def test_karras_levels_are_equally_spaced_in_the_root_of_sigma_over_alpha():
    """u_i^(1/ρ) falls by equal steps from 80 to 0.002, as in EDM (Karras et al. 2022, Eq. 5)."""
    for rho in (7.0, 3.0):
        roots = [level.noise_to_signal ** (1 / rho) for level in Karras(18, rho=rho)(VE())[:-1]]
        assert len(roots) == 18
        assert roots[0] ** rho == pytest.approx(80.0, rel=1e-12)
        assert roots[-1] ** rho == pytest.approx(0.002, rel=1e-9)
        gaps = [before - after for before, after in pairwise(roots)]
        assert max(gaps) == pytest.approx(min(gaps), rel=1e-6)


def test_log_snr_levels_are_equally_spaced_in_log_sigma_over_alpha():
    """From 80 to 0.002 in equal factors, which Karras' levels approach as ρ grows."""
    levels = LogSNR(18)(VE())
    ratios = [level.noise_to_signal for level in levels[:-1]]
    assert len(ratios) == 18 and levels[-1] is CLEAN
    wanted = [exp(log(80.0) + i / 17 * (log(0.002) - log(80.0))) for i in range(18)]
    assert ratios == pytest.approx(wanted, rel=1e-9)
    limit = [level.noise_to_signal for level in Karras(18, rho=1000.0)(VE())[:-1]]
    assert ratios == pytest.approx(limit, rel=0.02)


RATIO_GRIDS = {
    "karras": (Karras, lambda high, low, f: (high ** (1 / 7) + f * (low ** (1 / 7) - high ** (1 / 7))) ** 7),
    "log_snr": (LogSNR, lambda high, low, f: high * (low / high) ** f),
}


@pytest.mark.parametrize("name", RATIO_GRIDS)
def test_chosen_ratios_on_a_table_become_the_nearest_levels_each_once(name):
    """No other level of the table is nearer in log σ/α to what the formula wants."""
    grid, formula = RATIO_GRIDS[name]
    levels = grid(25)(SCHEDULE)[:-1]
    assert len({level.t for level in levels}) == len(levels)
    assert all(level is LEVELS[level.t] for level in levels)
    wanted = [formula(LEVELS[-1].noise_to_signal, LEVELS[0].noise_to_signal, i / 24) for i in range(25)]
    distances = [[abs(log(level.noise_to_signal / ratio)) for level in LEVELS] for ratio in wanted]
    nearest = [row.index(min(row)) for row in distances]
    assert [level.t for level in levels] == list(dict.fromkeys(nearest))


@pytest.mark.parametrize("grid", [Karras, LogSNR])
def test_chosen_ratios_need_a_finite_start(grid):
    with pytest.raises(ValueError, match=r"set grid\.largest"):
        grid(10)(Flow())
    levels = grid(10, largest=50.0, smallest=0.01)(Flow())
    assert levels[0].noise_to_signal == pytest.approx(50.0, rel=1e-12)
    assert levels[-2].noise_to_signal == pytest.approx(0.01, rel=1e-9)
    with pytest.raises(ValueError, match=r"wrong order: largest=0\.001"):
        grid(10, largest=1e-3)(VE())


REFUSED = [(Karras, "rho", 0.0), *((grid, *bad) for grid in (Karras, LogSNR) for bad in (("largest", -1.0), ("smallest", float("nan"))))]


@pytest.mark.parametrize(("grid", "name", "value"), REFUSED)
def test_values_out_of_bounds_are_refused(grid, name, value):
    with pytest.raises(ValueError, match=rf"grid\.{name}"):
        grid(10, **{name: value})
