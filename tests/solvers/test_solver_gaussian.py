"""Whole runs on a Gaussian prior: the law of what a solver returns, its trajectory, and its order of convergence."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import sqrt

import closed_form
import numpy as np
import pytest
import torch
from closed_form import Affine, GaussianLaw, linear_bars
from gaussian_prior import RecordedNoise, Setting, gaussian_prior, make_setting, with_rng

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.grids import Linspace, Quadratic, Trailing
from diffusion_priors.diffusion.image_random import ImageRandom, image_generator
from diffusion_priors.diffusion.levels import CLEAN
from diffusion_priors.diffusion.schedules import Cosine, Linear
from diffusion_priors.diffusion.transitions import DDIM, FixedSmall
from diffusion_priors.solvers.annealing import Likelihood
from diffusion_priors.solvers.base import Problem, Solver, steps_of
from diffusion_priors.solvers.dps import DPS
from diffusion_priors.solvers.dps_score import DPSScore
from diffusion_priors.solvers.score_ald import ScoreALD
from diffusion_priors.solvers.score_ald_langevin import ScoreALDLangevin
from diffusion_priors.solvers.sdedit import SDEdit
from diffusion_priors.solvers.tweedie import Tweedie
from diffusion_priors.solvers.unconditional import Unconditional

BARS = linear_bars()
GRID = [999, 800, 600, 400, 200, 50, 0]
"""What Linspace and its like leave of 1000 steps is tested elsewhere; here any falling list will do."""
INNER = 2


def walk_of(solver: Solver, setting: Setting):
    """The project's steps for GRID, and the (ᾱ_t, ᾱ_s) of each step."""

    def grid(schedule):
        return [schedule.level(t) for t in GRID] + [CLEAN]

    plan = solver.plan(grid, setting.schedule)
    levels = [step.now for step in plan] + [plan[-1].then]
    bars = [1.0 if level.sigma == 0.0 else BARS[level.t] for level in levels]
    return plan, list(pairwise(bars))


def score_pull(law: GaussianLaw, matrix, y, sigma_y):
    """s̃ of ScoreALD with λ_t = 1/(2 (σ_y² + σ_t²)), as a function of rows x and ᾱ."""
    return lambda x, bar: law.score(x, bar) - (x @ matrix.T - y) @ matrix / (sigma_y**2 + 1 - bar)


def reverse(score):
    """The affine steps (x, z) → x of the DDPM reverse process with a score."""
    return lambda bar, bar_next: [lambda x, z: closed_form.ddpm(x, score(x, bar), bar, bar_next, z)]


def references(law: GaussianLaw, matrix, y, sigma_y):
    """Solver → (its start's mean, its start's standard deviation, (ᾱ_t, ᾱ_s) → the affine maps walked), in numpy."""
    image = y if len(y) == law.side else np.linalg.pinv(matrix) @ y

    def langevin_steps(bar, bar_next):
        def pull(u, variance):
            return -(u @ matrix.T - y) @ matrix / (sigma_y**2 + variance)

        weight = 0.5 / (sigma_y**2 + (1 - bar) / bar)
        inner = [lambda u, z: closed_form.langevin(law, u, bar, 0.2, weight, pull, [z])] * INNER
        return inner + ([lambda u, z: law.x0(sqrt(bar) * u, bar)] if bar_next == 1.0 else [])

    nothing = np.zeros(law.side)
    high, half = BARS[999], BARS[499]
    return {
        "unconditional": (Unconditional(), nothing, sqrt(1 - high), reverse(law.score)),
        "sdedit": (SDEdit(t_star=500), sqrt(half) * image, sqrt(1 - half), reverse(law.score)),
        "tweedie": (Tweedie(t=500), sqrt(half) * image, sqrt(1 - half), lambda bar, _: [lambda x, z: law.x0(x, bar)]),
        "score_ald": (ScoreALD(Likelihood()), nothing, sqrt(1 - high), reverse(score_pull(law, matrix, y, sigma_y))),
        "langevin": (ScoreALDLangevin(Likelihood(), 0.2, INNER), nothing, sqrt((1 - high) / high), langevin_steps),
    }


AFFINE = ["unconditional", "sdedit", "tweedie", "score_ald", "langevin"]


def expected_moments(start, std, steps, bars, side):
    """Mean and covariance after the walk, by x ↦ F x + G z + c step after step."""
    mean, covariance = start, std**2 * np.eye(side)
    for bar, bar_next in bars:
        for step in steps(bar, bar_next):
            mean, covariance = Affine.of(step, side).moments(mean, covariance)
    return mean, covariance


def draws_needed(solver, problem, plan) -> int:
    """How often a run of one image asks for noise."""

    class Counting(ImageRandom):
        taken = 0

        def normal(self, like):
            self.taken += 1
            return super().normal(like)

    noise = Counting(problem.rng.generators)
    solver.solve(with_rng(problem, noise), plan)
    return noise.taken


def exact_moments(solver, setting, plan, draws):
    """Mean and covariance of an affine solver: the images of one batch see no noise, or one unit of one draw each."""
    side = setting.law.side
    noise = np.zeros((draws, 1 + draws * side, side))
    for k in range(draws):
        noise[k, 1 + k * side : 1 + (k + 1) * side] = np.eye(side)
    x = solver.solve(setting.record(noise), plan).x0.flatten(1).numpy()
    responses = x[1:] - x[0]
    return x[0], responses.T @ responses


@pytest.mark.parametrize("case", ["random mask", "blur", "super-resolution"])
@pytest.mark.parametrize("name", AFFINE)
def test_law_of_the_restoration_is_the_affine_recursions(name, case):
    """For a Gaussian prior these methods are affine in x and in the noise, so mean and covariance follow in closed form."""
    small = make_setting(case, batch=1, same_measurement=True)
    law, matrix, y, sigma_y = small.law, small.matrices[0], small.y[0], small.sigma_y[0]
    solver, start, std, steps = references(law, matrix, y, sigma_y)[name]
    plan, bars = walk_of(solver, small)
    wanted_mean, wanted_covariance = expected_moments(start, std, steps, bars, law.side)
    draws = draws_needed(solver, small.problem, plan)

    exact = make_setting(case, batch=1 + draws * law.side, same_measurement=True)
    mean, covariance = exact_moments(solver, exact, plan, draws)
    np.testing.assert_allclose(mean, wanted_mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(covariance, wanted_covariance, rtol=1e-9, atol=1e-9 * wanted_covariance.max())


@pytest.mark.parametrize("name", AFFINE)
def test_samples_have_that_mean_and_covariance(name):
    """4000 runs with the generators of real runs, within 5 standard errors: the draws are standard normal and independent."""
    count = 4000
    setting = make_setting("blur", batch=count, same_measurement=True)
    law = setting.law
    solver, start, std, steps = references(law, setting.matrices[0], setting.y[0], setting.sigma_y[0])[name]
    plan, bars = walk_of(solver, setting)
    mean, covariance = expected_moments(start, std, steps, bars, law.side)
    x = solver.solve(setting.problem, plan).x0.flatten(1).numpy()
    variances = np.diag(covariance)
    assert np.abs((x.mean(0) - mean) / np.sqrt(variances / count)).max() < 5.0
    errors = np.sqrt((np.outer(variances, variances) + covariance**2) / count)
    assert np.abs((np.cov(x.T) - covariance) / errors).max() < 5.0


@pytest.mark.parametrize("case", ["identity", "box", "blur", "super-resolution"])
@pytest.mark.parametrize("solver", [DPS(0.3, per_level=False, limit=False), DPSScore(20.0)], ids=lambda s: type(s).__name__)
def test_guided_trajectories_are_those_of_the_formula(solver, case):
    """DPS is not affine, so the whole run is done again in numpy, with the same noise: every state on the way agrees."""
    setting = make_setting(case)
    law = setting.law
    plan, bars = walk_of(solver, setting)
    draws = np.random.default_rng(5).normal(size=(len(bars), 3, law.side))
    solution = solver.solve(setting.record(draws), plan, remember=True)

    x = sqrt(1 - BARS[999]) * draws[0]
    np.testing.assert_allclose(solution.trajectory[0].flatten(1), x, atol=1e-8)
    for k, (bar, bar_next) in enumerate(bars):
        z = draws[k + 1] if bar_next < 1.0 else 0.0
        gradient = np.concatenate(
            [closed_form.residual_gradient(law, row[None], bar, a, y) for row, a, y in zip(x, setting.matrices, setting.y, strict=True)]
        )
        if isinstance(solver, DPS):
            x = closed_form.ddpm(x, law.score(x, bar), bar, bar_next, z) - solver.zeta * gradient
        else:
            x = closed_form.ddpm(x, law.score(x, bar) - 2.0 * solver.zeta * gradient, bar, bar_next, z)
        np.testing.assert_allclose(solution.trajectory[k + 1].flatten(1), x, atol=1e-8)
    np.testing.assert_array_equal(solution.x0, solution.trajectory[-1])


def test_guidance_brings_the_restoration_to_the_measurement():
    """The residual of DPS falls as ζ grows, from the unconditional samples' to below σ_y."""
    setting = make_setting("box", batch=64, same_measurement=True)
    plan = steps_of(Linspace(100)(setting.schedule))

    def residual(zeta):
        noise = ImageRandom([image_generator(1, b) for b in range(64)])
        problem = with_rng(setting.problem, noise)
        return problem.measurement.rms_residual(DPS(zeta).solve(problem, plan).x0).mean().item()

    residuals = [residual(zeta) for zeta in (0.0, 0.1, 0.2, 0.5)]
    assert all(before > after for before, after in pairwise(residuals))
    assert residuals[-1] < setting.sigma_y[0]


def test_langevin_finds_the_posterior_mean():
    """Without noise the dynamics goes to E[x0 | y] = m + S Aᵀ (A S Aᵀ + σ_y² I)⁻¹ (y − A m), annealed on the way.

    Each level's drift vanishes at the posterior mean of that level's smoothed problem; more inner steps follow it more
    closely: four times as many at least halve the distance, and 16 per level end within 5 % of the prior mean's.
    """
    setting = make_setting("blur", batch=1, sigma_y=[0.4])
    law, matrix, y, sigma_y = setting.law, setting.matrices[0], setting.y[0], setting.sigma_y[0]
    gain = law.covariance @ matrix.T @ np.linalg.inv(matrix @ law.covariance @ matrix.T + sigma_y**2 * np.eye(len(y)))
    posterior = law.mean + gain @ (y - matrix @ law.mean)
    plan = steps_of(Quadratic(50)(setting.schedule))

    def error(inner):
        silence = np.zeros((1 + inner * (len(plan) + 1), 1, law.side))
        x = ScoreALDLangevin(Likelihood(), 0.9, inner).solve(setting.record(silence), plan).x0.flatten().numpy()
        return np.linalg.norm(x - posterior) / np.linalg.norm(law.mean - posterior)

    errors = [error(inner) for inner in (1, 4, 16)]
    assert errors[1] < errors[0] / 2
    assert errors[2] < errors[1] / 2
    assert errors[2] < 0.05


# Order of convergence of the unconditional samplers.
#
# The network is exact, so what is left is the sampler's own error. The schedule is ten times finer than usual, so that
# its last level (σ_0² = β_0 ~ 1e-5) and the start (x_T ~ N(0, σ_T² I) for N(√ᾱ_T m, ᾱ_T S + σ_T² I)) stay below it.

PIXELS = np.array([0.05, 0.3, 1.0])
MEANS = np.array([0.5, -0.3, 0.1])
FINE = 8000
STEPS = [25, 50, 100, 200, 400]
FINE_SCHEDULES = {"linear": Linear(FINE, 1e-4 * 1000 / FINE, 2e-2 * 1000 / FINE), "cosine": Cosine(FINE)}


def law_errors(schedule, sampler, grid):
    """(‖mean − m‖, ‖covariance − S‖) of the samples, exact, relative to ‖m‖ and ‖S‖."""
    law = GaussianLaw(MEANS, np.diag(PIXELS))
    prior = gaussian_prior(law, (1, 1, 3), schedule)
    plan = steps_of(grid(prior.image_schedule))
    draws = 1 if getattr(sampler, "eta", 1.0) == 0.0 else len(plan)
    noise = np.zeros((draws, 1 + draws, 3))
    noise[:, 1:] = np.eye(draws)[:, :, None]  # the pixels are independent: one unit of one draw moves all three
    like = torch.zeros(1 + draws, 1, 1, 3, dtype=torch.float64)
    problem = Problem(Denoiser(prior), None, sampler, RecordedNoise(noise), like)
    x = Unconditional().solve(problem, plan).x0.flatten(1).numpy()
    variances = ((x[1:] - x[0]) ** 2).sum(0)
    return np.linalg.norm(x[0] - MEANS) / np.linalg.norm(MEANS), np.linalg.norm(variances - PIXELS) / np.linalg.norm(PIXELS)


def slope(steps, errors):
    """The exponent p of error ∝ steps^p, by least squares on logarithms."""
    return np.polyfit(np.log(steps), np.log(errors), 1)[0]


@pytest.mark.parametrize("grid", [Linspace, Trailing, Quadratic], ids=lambda g: g.__name__)
@pytest.mark.parametrize("transition", [DDIM(), FixedSmall()], ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("schedule", FINE_SCHEDULES)
def test_unconditional_samplers_converge_at_first_order(schedule, transition, grid):
    """Both are Euler steps of the reverse ODE or SDE, so the covariance's error is ∝ 1/steps: slope −1.

    Measured: DDIM −0.97 to −0.99; DDPM −0.87 to −0.97, since its error at 25 steps, a quarter of S, is not yet in
    the asymptotic regime. From 200 to 400 steps alone both lie between −0.93 and −1.
    """
    errors = [law_errors(FINE_SCHEDULES[schedule], transition, grid(n))[1] for n in STEPS]
    assert -1.1 < slope(STEPS, errors) < -0.8
    assert -1.05 < slope(STEPS[-2:], errors[-2:]) < -0.9
    assert errors[-1] < 0.03


@pytest.mark.parametrize("schedule", FINE_SCHEDULES)
def test_sampled_means_are_right_on_every_grid(schedule):
    """DDPM: from x_T the mean of the samples is E[x0 | x_T], exactly, however few the steps (the posterior means chain).

    Since runs start at σ_T z, whose mean is 0 and not α_T m, what is left is E[x0 | x_T = 0] − m = −α_T² S (α_T² S + σ_T²)⁻¹ m.
    DDIM's mean takes another path; its bias is below α_T.
    """
    levels = FINE_SCHEDULES[schedule].table
    alpha, sigma = levels[-1].alpha, levels[-1].sigma
    bias = MEANS * alpha**2 * PIXELS / (alpha**2 * PIXELS + sigma**2)
    for grid in (Linspace(3), Quadratic(40), Trailing(400)):
        error, _ = law_errors(FINE_SCHEDULES[schedule], FixedSmall(), grid)
        np.testing.assert_allclose(error, np.linalg.norm(bias) / np.linalg.norm(MEANS), rtol=1e-6, atol=1e-12)
    assert law_errors(FINE_SCHEDULES[schedule], DDIM(), Linspace(400))[0] < alpha


def test_ddim_on_a_standard_normal_prior_is_a_product_of_cosines():
    """S = I, m = 0, α = cos φ, σ = sin φ: x̂0 = α x and ε̂ = σ x, so x_s = cos(φ_s − φ_t) x_t, for any steps."""
    law = GaussianLaw(np.zeros(2), np.eye(2))
    setting = make_setting("identity", batch=1)
    problem = replace(setting.problem, denoiser=Denoiser(gaussian_prior(law, (1, 1, 2))), sampler=DDIM())
    levels = Trailing(7)(setting.schedule)
    z = np.array([[[0.7, -1.1]]])
    x = Unconditional().solve(with_rng(problem, RecordedNoise(z)), steps_of(levels)).x0.flatten().numpy()
    angles = np.arccos([sqrt(BARS[level.t]) if level.sigma else 1.0 for level in levels])
    np.testing.assert_allclose(x, levels[0].sigma * np.prod(np.cos(np.diff(angles))) * z[0, 0], rtol=1e-9)
