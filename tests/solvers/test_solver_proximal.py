"""DDiff and FAST-DIPS against their own recursions in dense matrices, for a Gaussian prior and the noise captured."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from closed_form import fast_dips, linear_bars, measured
from gaussian_prior import CASES, bars_of, make_setting, state, step_of
from one_dimension import width_of

from diffusion_priors.diffusion.grids import Linspace
from diffusion_priors.diffusion.samplers import Heun
from diffusion_priors.diffusion.transitions import Renoise
from diffusion_priors.solvers.base import Walk
from diffusion_priors.solvers.ddiff import DDiff, Memory
from diffusion_priors.solvers.diffpir import DiffPIR
from diffusion_priors.solvers.fast_dips import FastDIPS

BARS = linear_bars()
JUMPS = [(990, 900), (500, 320), (40, 4), (40, None)]
every_case = pytest.mark.parametrize("case", CASES)


# DDiff


@every_case
def test_ddiff_is_admm_along_the_levels(case):
    """x = argmin ‖y − A x‖² + ρ‖x − z + u‖², x_s = α_s (x + u) + σ_s (√(1 − ζ) ε̂ + √ζ z'), then u += x − z with the next z."""
    lam, zeta = 3.0, 0.4
    setting, solver = make_setting(case, sampler=Renoise(zeta)), DDiff(lam)
    plan = solver.plan(Linspace(6), setting.schedule)
    draws = np.random.default_rng(1).normal(size=(len(plan), 3, setting.law.side))
    found = solver.solve(setting.record(draws), plan, remember=True).trajectory
    for b, (a, y, sigma) in enumerate(zip(setting.matrices, setting.y, setting.sigma_y, strict=True)):
        bar = BARS[plan[0].now.t]
        xt, u, x = sqrt(1 - bar) * draws[0, b], np.zeros(setting.law.side), None
        for k, step in enumerate(plan):
            bar, bar_next = BARS[step.now.t], BARS[step.then.t] if step.then.sigma else 1.0
            z = setting.law.x0(xt[None], bar)[0]
            u = u if x is None else u + x - z
            rho = lam * sigma**2 * bar / (1 - bar)
            x = np.linalg.solve(a.T @ a + rho * np.eye(len(z)), a.T @ y + rho * (z - u))
            eps = (xt - sqrt(bar) * x) / sqrt(1 - bar)
            if bar_next == 1.0:
                xt = x
            else:
                xt = sqrt(bar_next) * (x + u) + sqrt(1 - bar_next) * (sqrt(1 - zeta) * eps + sqrt(zeta) * draws[k + 1, b])
            np.testing.assert_allclose(found[k + 1][b].flatten(), xt, rtol=1e-5, atol=1e-5)


def test_a_second_estimate_of_the_sampler_takes_its_data_step_too():
    """Heun's slope at the level reached is that of x = prox(x̂0 − u, ρ) there; u = 0 in the first step."""
    lam, (t, s) = 3.0, (500, 320)
    setting, solver = make_setting("blur", sampler=Heun()), DDiff(lam)
    bar, bar_next = BARS[t], BARS[s]
    x, z = state(setting, bar)
    moved, _, _ = solver.step(Walk(setting.tensor(x), Memory(None)), step_of(setting, (t, s)), setting.record(z))

    def eps(row, b, bar):
        a, y, rho = setting.matrices[b], setting.y[b], lam * setting.sigma_y[b] ** 2 * bar / (1 - bar)
        x0 = setting.law.x0(row[None], bar)[0]
        near = np.linalg.solve(a.T @ a + rho * np.eye(len(x0)), a.T @ y + rho * x0)
        return (row - sqrt(bar) * near) / sqrt(1 - bar)

    for b, row in enumerate(x):
        slope, ratio = eps(row, b, bar), sqrt(bar_next / bar)
        euler = ratio * row + (sqrt(1 - bar_next) - ratio * sqrt(1 - bar)) * slope
        wanted = ratio * row + (sqrt(1 - bar_next) - ratio * sqrt(1 - bar)) * (slope + eps(euler, b, bar_next)) / 2
        np.testing.assert_allclose(moved.x[b].flatten(), wanted, rtol=1e-6, atol=1e-7)


def test_the_dual_takes_the_bias_of_diffpir_away_and_with_it_the_width():
    """One-dimensional Gaussian, λ = 7, ζ = 0.3: DiffPIR's mean is a posterior deviation off and its law twice too wide."""
    with_dual, without = (width_of(solver, 100, 1.0, 0.1, Renoise(0.3)) for solver in (DDiff(7.0), DiffPIR(7.0)))
    assert abs(with_dual.bias) < 0.2 < 1.0 < abs(without.bias)
    assert with_dual.ratio < 1.0 < 2.0 < without.ratio


# FAST-DIPS


@pytest.mark.parametrize("sigma_y", [(0.1, 0.2, 0.4), (0.0, 0.0, 0.0)], ids=["noise", "no noise"])
@every_case
def test_fast_dips_step_is_admm_with_a_ball_and_fresh_noise(case, sigma_y):
    setting = make_setting(case, sigma_y=sigma_y)
    for iterations, descents, rho in ((3, 1, 200.0), (4, 2, 5.0)):
        for jump in JUMPS:
            bar, bar_next = bars_of(jump)
            x, z = state(setting, bar)
            moved, seen, _ = FastDIPS(rho, iterations, descents).step(setting.tensor(x), step_of(setting, jump), setting.record(z))
            for b, (a, y, sigma) in enumerate(zip(setting.matrices, setting.y, setting.sigma_y, strict=True)):
                x0 = setting.law.x0(x[b : b + 1], bar)[0]
                radius = sigma * sqrt(measured(a))
                near = fast_dips(a, y, x0, sqrt((1 - bar) / bar), rho, radius, iterations, descents)
                wanted = sqrt(bar_next) * near + sqrt(1 - bar_next) * z[0, b]
                np.testing.assert_allclose(moved[b].flatten(), wanted, rtol=1e-8, atol=1e-8, err_msg=str(jump))
                np.testing.assert_allclose(seen[b].flatten(), x0, rtol=1e-9, atol=1e-9)


def nearest_within(a, y, x0, radius):
    """argmin ‖x − x̂0‖ with ‖A x − y‖ ≤ radius: x = (I + μ AᵀA)⁻¹(x̂0 + μ Aᵀy), μ by bisection."""

    def at(mu):
        return np.linalg.solve(np.eye(len(x0)) + mu * a.T @ a, x0 + mu * a.T @ y)

    def outside(mu):
        return np.linalg.norm(a @ at(mu) - y) > radius

    low, high = 0.0, 1e8
    if not outside(low):
        return x0
    for _ in range(200):
        middle = sqrt(max(low, 1e-8) * high)
        low, high = (middle, high) if outside(middle) else (low, middle)
    return at(high)


@pytest.mark.parametrize("case", ["box", "blur"])
def test_fast_dips_goes_to_the_nearest_image_within_the_noise(case):
    setting = make_setting(case)
    bar = BARS[500]
    x, z = state(setting, bar)
    found, _, _ = FastDIPS(1.0, 120, 8).step(setting.tensor(x), step_of(setting, (500, None)), setting.record(z))
    for b, (a, y, sigma) in enumerate(zip(setting.matrices, setting.y, setting.sigma_y, strict=True)):
        x0 = setting.law.x0(x[b : b + 1], bar)[0]
        wanted = nearest_within(a, y, x0, sigma * sqrt(measured(a)))
        np.testing.assert_allclose(found[b].flatten(), wanted, rtol=1e-3, atol=1e-3)


REFUSED = [
    (lambda: DDiff(0.0), "lam"),
    (lambda: DDiff(iterations=0), "iterations"),
    (lambda: FastDIPS(rho=-1.0), "rho"),
    (lambda: FastDIPS(iterations=0), "iterations"),
    (lambda: FastDIPS(descents=0), "descents"),
]


@pytest.mark.parametrize(("make", "key"), REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_values_out_of_bounds_are_refused(make, key):
    with pytest.raises(ValueError, match=rf"set solver\.{key}"):
        make()
