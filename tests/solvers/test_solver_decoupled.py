"""DAPS and PnP-DM: their plans, one step in dense matrices on the same noise, and the chains of DAPS draw by draw."""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

import closed_form
import numpy as np
import pytest
import torch
from closed_form import linear_bars
from gaussian_prior import CASES, make_setting, state, with_rng

from diffusion_priors.diffusion.grids import Linspace
from diffusion_priors.diffusion.levels import CLEAN
from diffusion_priors.diffusion.transitions import FixedSmall
from diffusion_priors.solvers.base import Step
from diffusion_priors.solvers.daps import DAPS
from diffusion_priors.solvers.inner_chains import HMC, Langevin
from diffusion_priors.solvers.inner_samplers import Exact
from diffusion_priors.solvers.pnp_dm import PnPDM

BARS = linear_bars()
RATIOS = np.sqrt((1 - BARS) / BARS)


class Rows:
    """Hands out the draws one after the other, each (B, n), shaped like what is asked for."""

    def __init__(self, rows):
        self.rows = list(rows)

    def normal(self, like):
        return torch.from_numpy(self.rows.pop(0)).to(like).view_as(like)


def draws_of(setting, *kinds):
    """Noise of the size of x0 ("x") or of y ("y"), one array each."""
    rng = np.random.default_rng(5)
    sides = {"x": setting.law.side, "y": setting.y.shape[1]}
    return [rng.normal(size=(len(setting.y), sides[kind])) for kind in kinds]


def nearest(ratio):
    """The index of the level whose σ/α is nearest to `ratio` in the logarithm."""
    return int(np.abs(np.log(RATIOS) - np.log(ratio)).argmin())


def product(mean, variance, a, y, sigma_y, zeta, xi):
    """A draw of N(x; m, r²) N(y; A x, σ_y²): the solution of the perturbed least-squares problem, by its normal equations."""
    z = mean + sqrt(variance) * zeta
    precision = np.eye(len(mean)) / variance + a.T @ a / sigma_y**2
    return np.linalg.solve(precision, z / variance + a.T @ (y + a.any(1) * sigma_y * xi) / sigma_y**2)


def flow(law, x, indices):
    """Where Euler's steps of the probability flow arrive from x (D,), over the levels `indices` to the noise-free end."""
    for bar, bar_next in pairwise([*BARS[list(indices)], 1.0]):
        x = closed_form.ddim(x[None], law.score(x[None], bar), bar, bar_next)[0]
    return x


def karras(start, steps):
    """Indices of `steps` levels from the level `start` to the least noisy one, equally spaced in (σ/α)^(1/7)."""
    high, low = RATIOS[start] ** (1 / 7), RATIOS[0] ** (1 / 7)
    return list(dict.fromkeys(nearest((high + i / (steps - 1) * (low - high)) ** 7) for i in range(steps)))


@pytest.mark.parametrize("ode_steps", [1, 5])
@pytest.mark.parametrize("prior_variance", [None, 0.6])
@pytest.mark.parametrize("case", CASES)
def test_daps_step_is_the_flow_an_exact_draw_and_fresh_noise(case, prior_variance, ode_steps):
    setting = make_setting(case)
    solver = DAPS(Exact(), ode_steps, prior_variance)
    plan = solver.plan(lambda schedule: [schedule.table[t] for t in (990, 400, 30)] + [CLEAN], setting.schedule)
    for step in plan:
        bar, bar_next = BARS[step.now.t], 1.0 if step.then == CLEAN else BARS[step.then.t]
        x, _ = state(setting, bar)
        zeta, xi, z = draws = draws_of(setting, "x", "y", "x")
        moved, seen, _ = solver.step(setting.tensor(x), step, with_rng(setting.problem, Rows(draws)))
        r2 = RATIOS[step.now.t] ** 2
        variance = r2 if prior_variance is None else prior_variance * r2 / (prior_variance + r2)
        levels = [step.now.t] if ode_steps == 1 else karras(step.now.t, ode_steps)
        for b, (a, y, sigma_y) in enumerate(zip(setting.matrices, setting.y, setting.sigma_y, strict=True)):
            x0 = product(flow(setting.law, x[b], levels), variance, a, y, sigma_y, zeta[b], xi[b])
            np.testing.assert_allclose(seen[b].flatten(), x0, rtol=1e-4, atol=1e-5, err_msg=str(step.now.t))
            wanted = sqrt(bar_next) * x0 + sqrt(1 - bar_next) * z[b]
            np.testing.assert_allclose(moved[b].flatten(), wanted, rtol=1e-4, atol=1e-5)


def chain_of(solver, x, score, eta, draws, momentum):
    """The recursion of the chain in numpy; `draws` in the order in which they are taken."""
    if momentum is None:
        for z in draws:
            x = x + eta * score(x) + np.sqrt(2 * eta) * z
        return x
    v, *others = draws
    for z in others:
        v = momentum * v + np.sqrt(eta) * score(x) + sqrt(2 * (1 - momentum)) * z
        x = x + np.sqrt(eta) * v
    return x


@pytest.mark.parametrize("case", ["box", "blur", "super-resolution"])
@pytest.mark.parametrize(("chain", "momentum"), [(Langevin(3, 0.4), None), (HMC(3, 0.4, 0.7), 0.7)], ids=["langevin", "hmc"])
def test_a_chain_takes_its_steps_on_the_score_of_the_product(chain, momentum, case):
    """η = step_size/(1/r² + 1/σ_y²), an image's own; σ_y is that of the noise model."""
    setting, variance = make_setting(case, sigma_y=[0.3]), 0.2
    setting.problem.measurement.noise_model.std = 0.3
    draws = draws_of(setting, *["x"] * (3 if momentum is None else 4))
    mean = state(setting, BARS[300])[0]
    found = chain(setting.tensor(mean), variance, with_rng(setting.problem, Rows(draws))).flatten(1).numpy()
    eta = 0.4 / (1 / variance + 1 / 0.3**2)
    for b, (a, y) in enumerate(zip(setting.matrices, setting.y, strict=True)):

        def score(x, a=a, y=y, m=mean[b]):
            return (m - x) / variance + a.T @ (y - a @ x) / 0.3**2

        wanted = chain_of(chain, mean[b], score, eta, [draw[b] for draw in draws], momentum)
        np.testing.assert_allclose(found[b], wanted, rtol=1e-9, atol=1e-9)


def test_pnp_dm_plans_falling_couplings_and_the_levels_below_each():
    setting = make_setting("identity")
    plan = PnPDM(iterations=5, first=4.0, decay=0.5, smallest=0.4).plan(Linspace(200), setting.schedule)
    starts = [nearest(max(4.0 * 0.5**k, 0.4)) for k in range(5)]
    assert [step.now.t for step in plan] == starts
    grid = [level.t for level in Linspace(200)(setting.schedule)[:-1]]
    for step, start in zip(plan, starts, strict=True):
        assert [level.t for level in step.inner] == [t for t in grid if t < start]
        assert step.then == CLEAN


@pytest.mark.parametrize("case", CASES)
def test_pnp_dm_step_is_an_exact_draw_and_a_walk_of_the_prior(case):
    """z given x and y, then the DDPM from √ᾱ z at the level whose σ/α is ρ, noise and all."""
    setting = make_setting(case, sampler=FixedSmall())
    levels = [420, 200, 60]
    step = Step(setting.table[levels[0]], CLEAN, tuple(setting.table[t] for t in levels[1:]))
    x, _ = state(setting, BARS[100])
    zeta, xi, *walk = draws = draws_of(setting, "x", "y", "x", "x")
    moved, seen, _ = PnPDM().step(setting.tensor(x), step, with_rng(setting.problem, Rows(draws)))
    for b, (a, y, sigma_y) in enumerate(zip(setting.matrices, setting.y, setting.sigma_y, strict=True)):
        row = sqrt(BARS[420]) * product(x[b], RATIOS[420] ** 2, a, y, sigma_y, zeta[b], xi[b])
        for k, (bar, bar_next) in enumerate(pairwise([*BARS[levels], 1.0])):
            z = walk[k][b] if bar_next < 1.0 else 0.0
            row = closed_form.ddpm(row[None], setting.law.score(row[None], bar), bar, bar_next, z)[0]
        np.testing.assert_allclose(moved[b].flatten(), row, rtol=1e-4, atol=1e-5)
        assert torch.equal(moved[b], seen[b])
