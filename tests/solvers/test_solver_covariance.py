"""Methods that guide by a Gaussian with a covariance: one step against dense matrices, for a Gaussian prior and every kind of operator."""

from __future__ import annotations

from functools import cache
from math import sqrt

import numpy as np
import pytest
import torch
from closed_form import GaussianLaw, linear_bars
from gaussian_prior import CASES, RecordedNoise, gaussian_prior, make_setting

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.grids import Linspace
from diffusion_priors.diffusion.transitions import DDIM
from diffusion_priors.operators.identity import Identity
from diffusion_priors.operators.measurement import Measurement
from diffusion_priors.operators.noise_models import Gaussian
from diffusion_priors.solvers.annealing import Likelihood
from diffusion_priors.solvers.base import Problem
from diffusion_priors.solvers.ddnm import DDNM
from diffusion_priors.solvers.dds import DDS
from diffusion_priors.solvers.mmps import MMPS
from diffusion_priors.solvers.pigdm import PiGDM
from diffusion_priors.solvers.score_ald_scaled import ScoreALDScaled
from diffusion_priors.solvers.tmpd import TMPD

BARS = linear_bars()
LEVELS = [990, 500, 40]
EXACT = 80
"""Iterations of conjugate gradients that solve these systems to rounding."""


@cache
def setting_of(case, sigma_y=(0.1, 0.2, 0.4)):
    return make_setting(case, sigma_y=sigma_y)


def states(setting, bar):
    """x_t of each image, and its x̂0 and their Jacobian."""
    rng = np.random.default_rng(7)
    x0 = rng.multivariate_normal(setting.law.mean, setting.law.covariance, size=len(setting.matrices))
    x = sqrt(bar) * x0 + sqrt(1 - bar) * rng.normal(size=x0.shape)
    return x, setting.law.x0(x, bar), setting.law.jacobian(bar)


def estimated(solver, setting, x, t):
    denoised = solver.estimate(setting.tensor(x), setting.table[t], setting.problem)
    return denoised.x0.flatten(1).numpy(), denoised.eps


def guided(setting, bar, covariance):
    """x̃0 = x̂0 + (σ²/α) Jᵀ Aᵀ (C + σ_y² I)⁻¹ (y − A x̂0), C = `covariance`(A, J) of A x0 given x_t."""
    x, x0, jacobian = states(setting, bar)
    rows = []
    for a, y, sigma_y, mean in zip(setting.matrices, setting.y, setting.sigma_y, x0, strict=True):
        system = covariance(a, jacobian) + sigma_y**2 * np.eye(len(y))
        rows.append(mean + (1 - bar) / sqrt(bar) * jacobian.T @ a.T @ np.linalg.solve(system, y - a @ mean))
    return x, np.stack(rows)


def isotropic(bar, v):
    r2 = v * (1 - bar) / (bar * v + 1 - bar)
    return lambda a, _: r2 * a @ a.T


def tweedie(bar):
    return lambda a, jacobian: (1 - bar) / sqrt(bar) * a @ jacobian.T @ a.T


def row_sums(bar):
    return lambda a, jacobian: np.diag(np.clip((1 - bar) / sqrt(bar) * a @ jacobian.T @ a.T @ np.ones(len(a)), 0.0, None))


def solved() -> MMPS:
    """MMPS with its system solved to rounding."""
    solver = MMPS(EXACT)
    solver.tolerance = 1e-13
    return solver


METHODS = {
    "pigdm": (PiGDM(0.6), lambda bar: isotropic(bar, 0.6)),
    "mmps": (solved(), tweedie),
    "tmpd": (TMPD(), row_sums),
}


@pytest.mark.parametrize("t", LEVELS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", METHODS)
def test_the_estimate_is_that_of_the_formula(name, case, t):
    solver, covariance = METHODS[name]
    setting, bar = setting_of(case), BARS[t]
    x, wanted = guided(setting, bar, covariance(bar))
    np.testing.assert_allclose(estimated(solver, setting, x, t)[0], wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("case", CASES)
def test_mmps_is_the_posterior_mean_given_x_t_and_y(case):
    """Tweedie's covariance is exact for a Gaussian prior: x̃0 = E[x0 | x_t, y], by conditioning N(m, S) on both."""
    setting = setting_of(case)
    for t in LEVELS:
        bar = BARS[t]
        x, _, _ = states(setting, bar)
        found, _ = estimated(solved(), setting, x, t)
        for row, state, a, y, sigma_y in zip(found, x, setting.matrices, setting.y, setting.sigma_y, strict=True):
            prior = np.linalg.inv(setting.law.covariance)
            precision = prior + bar / (1 - bar) * np.eye(len(state)) + a.T @ a / sigma_y**2
            pull = prior @ setting.law.mean + sqrt(bar) / (1 - bar) * state + a.T @ y / sigma_y**2
            np.testing.assert_allclose(row, np.linalg.solve(precision, pull), rtol=1e-6, atol=1e-7)


def test_one_iteration_of_mmps_is_one_step_of_conjugate_gradients():
    setting, bar = setting_of("blur"), BARS[500]
    x, x0, jacobian = states(setting, bar)
    found, _ = estimated(MMPS(1), setting, x, 500)
    for row, mean, a, y, sigma_y in zip(found, x0, setting.matrices, setting.y, setting.sigma_y, strict=True):
        system, r = tweedie(bar)(a, jacobian) + sigma_y**2 * np.eye(len(y)), y - a @ mean
        weighted = (r @ r) / (r @ system @ r) * r
        np.testing.assert_allclose(row, mean + (1 - bar) / sqrt(bar) * jacobian.T @ a.T @ weighted, rtol=1e-8)


def test_what_a_step_costs():
    setting = setting_of("box")
    x, _, _ = states(setting, BARS[500])
    for solver, vjps in ((PiGDM(), 1), (MMPS(1), 2), (MMPS(3), 4), (TMPD(), 2), (DDNM(), 0), (DDS(), 0)):
        setting.problem.denoiser.reset()
        estimated(solver, setting, x, 500)
        assert (setting.problem.denoiser.forwards, setting.problem.denoiser.vjps) == (1, vjps)


@pytest.mark.parametrize("sigma_y", [(0.1, 0.2, 0.4), (0.0, 0.0, 0.0)], ids=["noise", "no noise"])
@pytest.mark.parametrize("case", CASES)
def test_ddnm_puts_the_pseudo_inverse_in_place_and_keeps_the_networks_eps(case, sigma_y):
    setting, bar = setting_of(case, sigma_y), BARS[500]
    x, x0, _ = states(setting, bar)
    found, eps = estimated(DDNM(), setting, x, 500)
    wanted = [m + np.linalg.pinv(a) @ (y - a @ m) for m, a, y in zip(x0, setting.matrices, setting.y, strict=True)]
    np.testing.assert_allclose(found, np.stack(wanted), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(eps.flatten(1), (x - sqrt(bar) * x0) / sqrt(1 - bar), rtol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_dds_solves_its_system_and_stops_after_its_iterations(case):
    """With enough iterations it is (I + γ AᵀA)⁻¹(x̂0 + γ Aᵀy); one iteration is the steepest descent from x̂0."""
    setting, bar, gamma = setting_of(case), BARS[300], 3.0
    x, x0, _ = states(setting, bar)
    whole, eps = estimated(DDS(gamma, EXACT), setting, x, 300)
    one, _ = estimated(DDS(gamma, 1), setting, x, 300)
    for row, first, mean, a, y in zip(whole, one, x0, setting.matrices, setting.y, strict=True):
        system = np.eye(len(mean)) + gamma * a.T @ a
        np.testing.assert_allclose(row, np.linalg.solve(system, mean + gamma * a.T @ y), rtol=1e-5, atol=1e-6)
        r = gamma * a.T @ (y - a @ mean)
        np.testing.assert_allclose(first, mean + (r @ r) / (r @ system @ r) * r, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(eps.flatten(1), (x - sqrt(bar) * x0) / sqrt(1 - bar), rtol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_scaled_scoreald_compares_y_at_the_level_of_x_t(case):
    """s̃ = s − λ ∇‖√ᾱ y − A x_t‖², λ = 1/(2 (ᾱ σ_y² + σ_t²)); x̃0 = x̂0 + (σ²/α)(s̃ − s)."""
    setting, bar = setting_of(case), BARS[500]
    x, x0, _ = states(setting, bar)
    found, _ = estimated(ScoreALDScaled(Likelihood()), setting, x, 500)
    for row, state, mean, a, y, sigma_y in zip(found, x, x0, setting.matrices, setting.y, setting.sigma_y, strict=True):
        change = a.T @ (sqrt(bar) * y - a @ state) / (bar * sigma_y**2 + 1 - bar)
        np.testing.assert_allclose(row, mean + (1 - bar) / sqrt(bar) * change, rtol=1e-8, atol=1e-9)


def test_a_small_prior_variance_goes_too_far_where_pixels_vary_together():
    """Pixels of variance 1/4 and correlation 0.9, y a grey image: x passes the grey on its way with v = 1/4, not with v = 1."""
    grey, side = 0.6, 64
    law = GaussianLaw(np.zeros(side), 0.25 * (0.9 * np.ones((side, side)) + 0.1 * np.eye(side)))
    prior, like = gaussian_prior(law, (1, 8, 8)), torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    measurement = Measurement(Identity().draw(like, [np.random.default_rng(0)]), Gaussian(), like + grey, like[:, :, :1, :1] + 0.05)

    def furthest(variance):
        solver, noise = PiGDM(variance), RecordedNoise(np.zeros((1, 1, side)))
        problem = Problem(Denoiser(prior), measurement, DDIM(), noise, like)
        run = solver.solve(problem, solver.plan(Linspace(50), prior.image_schedule), remember=True)
        return max(float(x.abs().max()) for x in run.trajectory) / grey

    assert furthest(0.25) > 1.4
    assert furthest(1.0) < 1.02


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf])
def test_values_out_of_bounds_are_refused(value):
    for make, name in ((PiGDM, "prior_variance"), (DDS, "gamma")):
        with pytest.raises(ValueError, match=f"solver.{name}"):
            make(value)
    with pytest.raises(ValueError, match=r"solver\.iterations"):
        MMPS(0)
