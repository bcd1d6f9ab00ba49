"""Schedules: their formulas written again in numpy, the constants of the published checkpoints, and diffusers' tables."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from diffusion_priors.diffusion.schedules import VE, Betas, Cosine, Flow, Linear, Rescaled

YAMLS = [Path(__file__).parents[2] / "conf" / "schedule" / f"{name}.yaml" for name in ("linear", "cosine")]


def alpha_bars(schedule: Betas) -> np.ndarray:
    return np.array([level.alpha**2 for level in schedule.table])


def cosine_squared(t: np.ndarray, steps: int, s: float) -> np.ndarray:
    return np.cos((t / steps + s) / (1 + s) * np.pi / 2) ** 2


@pytest.fixture(params=YAMLS, ids=lambda path: path.stem)
def schedule(request) -> Betas:
    return instantiate(OmegaConf.load(request.param))


def test_every_level_preserves_variance(schedule):
    """α² + σ² = 1, and 1 − ᾱ is not lost to cancellation where it is small."""
    for level in schedule.table:
        assert abs(level.alpha**2 + level.sigma**2 - 1.0) < 1e-15


def test_levels_grow_strictly_noisier(schedule):
    ratios = [level.sigma / level.alpha for level in schedule.table]
    assert all(before < after for before, after in pairwise(ratios))
    assert all(before.alpha > after.alpha for before, after in pairwise(schedule.table))


def test_levels_are_named_by_their_zero_based_index(schedule):
    assert [level.t for level in schedule.table] == list(range(len(schedule.betas)))


def test_levels_are_the_running_product_of_the_betas(schedule):
    """ᾱ_t/ᾱ_{t−1} = 1 − β_t (Ho et al. 2020, Eq. 4)."""
    bars = alpha_bars(schedule)
    np.testing.assert_allclose(bars[1:] / bars[:-1], 1 - np.array(schedule.betas[1:]), rtol=1e-12)
    assert bars[0] == pytest.approx(1 - schedule.betas[0], rel=1e-15)


@pytest.mark.parametrize(("steps", "start", "end"), [(1000, 1e-4, 2e-2), (100, 1e-3, 0.2), (2, 0.1, 0.3)])
def test_linear_alpha_bars(steps, start, end):
    expected = np.cumprod(1 - np.linspace(start, end, steps))
    np.testing.assert_allclose(alpha_bars(Linear(steps, start, end)), expected, rtol=1e-12)


@pytest.mark.parametrize("steps", [21, 100, 1000, 4000])
def test_linear_defaults_are_those_of_guided_diffusion_for_any_number_of_steps(steps):
    """Its get_named_beta_schedule("linear", T), written again: scale = 1000/T, β from scale · 1e-4 to scale · 2e-2."""
    scale = 1000 / steps
    betas = np.linspace(scale * 0.0001, scale * 0.02, steps, dtype=np.float64)
    np.testing.assert_allclose(Linear(steps).betas, betas, rtol=1e-12)
    np.testing.assert_allclose(alpha_bars(Linear(steps)), np.cumprod(1.0 - betas), rtol=1e-9)
    assert instantiate(OmegaConf.load(YAMLS[0]), steps=steps).betas == Linear(steps).betas


def test_linear_schedules_of_any_length_end_with_about_the_same_noise():
    """ᾱ_T = 4.0e-5 to 4.4e-5 for 1000 steps and more; with Ho et al.'s betas unchanged, 4000 steps would end at 2e-18."""
    assert all(3.9e-5 < alpha_bars(Linear(steps))[-1] < 4.4e-5 for steps in (1000, 2000, 4000, 10000))
    assert alpha_bars(Linear(4000, 1e-4, 2e-2))[-1] < 1e-17


def test_betas_that_are_given_are_taken_as_they_are():
    np.testing.assert_allclose(Linear(4000, beta_end=0.01).betas, np.linspace(2.5e-5, 0.01, 4000), rtol=1e-12)
    again = Linear(4000).describe()
    assert again.pop("kind") == "linear"
    assert Linear(**again).table == Linear(4000).table


@pytest.mark.parametrize(
    ("steps", "given"), [(20, {}), (1, {}), (1000, {"beta_end": 1.0}), (1000, {"beta_start": 0.0}), (10, {"beta_end": float("nan")})]
)
def test_linear_betas_outside_the_unit_interval_are_refused_with_the_keys(steps, given):
    with pytest.raises(ValueError, match=rf"for {steps} steps; set schedule\.beta_start and schedule\.beta_end"):
        Linear(steps, **given)


def test_linear_constants_of_the_published_checkpoints():
    """ᾱ_T = 4.0358e-5; √(1/ᾱ − 1) runs from 0.0100 to 157.4."""
    levels = Linear().table
    assert f"{levels[-1].alpha ** 2:.4e}" == "4.0358e-05"
    assert f"{levels[0].sigma / levels[0].alpha:.4f}" == "0.0100"
    assert f"{levels[-1].sigma / levels[-1].alpha:.1f}" == "157.4"


@pytest.mark.parametrize(("steps", "s"), [(1000, 0.008), (4000, 0.008), (50, 0.02)])
def test_cosine_alpha_bars(steps, s):
    """The product of the betas telescopes to f(t)/f(0) up to the last one, which is capped (Nichol & Dhariwal 2021, Eq. 17)."""
    schedule = Cosine(steps, s, max_beta=0.999)
    closed = cosine_squared(np.arange(1, steps + 1), steps, s) / cosine_squared(np.array(0.0), steps, s)
    bars = alpha_bars(schedule)
    np.testing.assert_allclose(bars[:-1], closed[:-1], rtol=1e-10)
    assert schedule.betas[-1] == 0.999
    assert bars[-1] == pytest.approx(closed[-2] * (1 - 0.999), rel=1e-10)


def test_cosine_caps_every_beta():
    schedule = Cosine(steps=20, max_beta=0.3)
    ratios = cosine_squared(np.arange(1, 21), 20, 0.008) / cosine_squared(np.arange(20), 20, 0.008)
    assert (1 - ratios > 0.3).sum() > 1  # the cap is at work in more than the last
    np.testing.assert_allclose(schedule.betas, np.minimum(1 - ratios, 0.3), rtol=1e-12)


@pytest.mark.parametrize(("ours", "theirs"), [(Linear(), "linear"), (Cosine(), "squaredcos_cap_v2")], ids=["linear", "cosine"])
def test_tables_are_those_of_diffusers(ours, theirs):
    """diffusers works in float32: each beta is off by 2⁻²⁴ at most, a product of T of them by T · 2⁻²⁴."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(beta_schedule=theirs)
    np.testing.assert_allclose(torch.tensor(ours.betas, dtype=torch.float64), scheduler.betas.double(), rtol=1e-6)
    np.testing.assert_allclose(alpha_bars(ours), scheduler.alphas_cumprod.double(), rtol=1000 * 2.0**-24)


@pytest.mark.parametrize("betas", [[], [0.1, 0.0], [0.1, 1.0], [-0.1], [float("nan")]])
def test_betas_outside_the_unit_interval_are_refused(betas):
    with pytest.raises(ValueError, match=r"between 0 and 1|a schedule has 1 to"):
        Betas(betas)


@pytest.mark.parametrize("kind", [Linear, Cosine])
@pytest.mark.parametrize("steps", [0, -3])
def test_a_schedule_without_steps_is_refused(kind, steps):
    with pytest.raises(ValueError, match=f"steps={steps}"):
        kind(steps=steps)


@pytest.mark.parametrize("schedule", [Linear(1, 1e-4, 2e-2), Cosine(1)], ids=["linear", "cosine"])
def test_one_step_is_a_schedule(schedule):
    (level,) = schedule.table
    assert level.t == 0 and level.alpha**2 + level.sigma**2 == pytest.approx(1.0, abs=1e-15)


# By time, by noise, and in other units


EVERY = [Linear(), Cosine(), VE(), Flow(), Rescaled(Linear(), 127.5), Rescaled(Flow(), 0.5)]


@pytest.mark.parametrize("schedule", EVERY, ids=lambda s: f"{s.kind} {getattr(s, 'factor', '')}")
def test_a_level_is_found_again_by_its_time_and_by_its_noise(schedule):
    for level in schedule.discretised()[::97]:
        assert schedule.level(level.t) == level
        found = schedule.at(level.noise_to_signal)
        assert found.t == pytest.approx(level.t, rel=1e-12)
        assert found.sigma == pytest.approx(level.sigma, rel=1e-12)


def test_the_level_at_a_noise_to_signal_ratio_is_the_nearest_of_a_table():
    schedule = Linear()
    ratios = np.array([level.noise_to_signal for level in schedule.table])
    for wanted in np.geomspace(1e-4, 1e4, 101):
        assert schedule.at(wanted).t == np.abs(np.log(ratios / wanted)).argmin()
    assert schedule.at(0.0).t == 0
    assert schedule.at(float("inf")).t == 999


def test_continuous_levels_are_their_formulas():
    """VE: α = 1, σ = t. Flow: α = 1 − t, σ = t. Beyond their ends the nearest level counts."""
    assert (VE().level(3.0).alpha, VE().level(3.0).sigma) == (1.0, 3.0)
    assert (Flow().level(0.3).alpha, Flow().level(0.3).sigma) == (0.7, 0.3)
    assert VE().at(1e9).sigma == 80.0
    assert Flow().at(float("inf")) == Flow().level(1.0)
    assert Flow().at(1.0).t == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("schedule", "t"), [(Linear(), 1000), (Linear(), 0.5), (VE(), 81.0), (VE(), 0.0), (Flow(), 1.1), (Flow(t_max=0.9), 0.95)]
)
def test_times_outside_a_schedule_are_refused(schedule, t):
    with pytest.raises(ValueError, match=f"t={t:g}"):
        schedule.level(t)
    with pytest.raises(ValueError, match=rf"solver\.t_star={2000 if schedule.table else t}"):
        schedule.after(2000 if schedule.table else t, "solver.t_star")


@pytest.mark.parametrize(
    "make", [lambda: VE(0.0), lambda: VE(2.0, 1.0), lambda: Flow(0.5, 0.4), lambda: Flow(t_max=1.5), lambda: VE(sigma_max=float("inf"))]
)
def test_ends_out_of_order_are_refused(make):
    with pytest.raises(ValueError, match=r"set schedule\."):
        make()
