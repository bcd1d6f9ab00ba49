"""The pieces that methods share, and methods of one step each: projections, exact Gaussian draws, Adam, RePaint's travels."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
import torch
from closed_form import linear_bars
from configured import make_sampler
from gaussian_prior import CASES, RecordedNoise, bars_of, make_setting, state, step_of, with_rng

from diffusion_priors.diffusion.grids import Linspace
from diffusion_priors.diffusion.transitions import DDIM, FixedSmall
from diffusion_priors.solvers.adam_dps import AdamDPS
from diffusion_priors.solvers.base import Step, Walk
from diffusion_priors.solvers.ddnm_plus import DDNMPlus
from diffusion_priors.solvers.gaussian_product import sample_product
from diffusion_priors.solvers.mcg import MCG
from diffusion_priors.solvers.red_diff import REDDiff
from diffusion_priors.solvers.repaint import RePaint
from diffusion_priors.solvers.travel import Travelled
from diffusion_priors.solvers.unconditional import Unconditional

BARS = linear_bars()
JUMPS = [(990, 900), (500, 320), (40, 4), (40, None)]


# Exact draws of a Gaussian product


class Rows:
    """Hands out the draws in `rows`, each (B, n), shaped like what is asked for."""

    def __init__(self, rows):
        self.rows = list(rows)

    def normal(self, like):
        return torch.from_numpy(self.rows.pop(0)).to(like).view_as(like)


@pytest.mark.parametrize("sigma_y", [0.3, 0.0])
@pytest.mark.parametrize("case", CASES)
def test_the_perturbed_system_gives_mean_and_covariance_of_the_product(case, sigma_y):
    """N(x; m, r²) N(y; A x, σ_y²): row 0 sees no noise, each other row one unit; without noise of y, N(m, r²) given A x = y."""
    one = make_setting(case, batch=1, sigma_y=[sigma_y])
    side, rows, variance = one.law.side, len(one.y[0]), 0.4
    units = np.vstack([np.zeros(side + rows), np.eye(side + rows)])
    setting = make_setting(case, batch=len(units), sigma_y=[sigma_y], same_measurement=True)
    mean = np.tile(np.random.default_rng(3).normal(size=side), (len(units), 1))
    rng = Rows([units[:, :side].copy(), units[:, side:].copy()])
    x = sample_product(setting.tensor(mean), variance, setting.problem.measurement, rng).flatten(1).numpy()

    a, y = setting.matrices[0], setting.y[0]
    gain = variance * a.T @ np.linalg.pinv(variance * a @ a.T + sigma_y**2 * np.eye(rows), rcond=1e-10)
    covariance = variance * (np.eye(side) - gain @ a)
    np.testing.assert_allclose(x[0], mean[0] + gain @ (y - a @ mean[0]), rtol=1e-5, atol=1e-6)
    responses = x[1:] - x[0]
    np.testing.assert_allclose(responses.T @ responses, covariance, rtol=1e-5, atol=1e-6)


# DDNM+


def ddnm_plus(matrix, y, sigma_y, x0, eps, z, bar, eta):
    """Λ and N of Wang et al. 2023, Eq. 17–18, by the eigenvectors of AᵀA."""
    squares, v = np.linalg.eigh(matrix.T @ matrix)
    s = np.sqrt(np.where(squares > 1e-10 * squares.max(), squares, 0.0))
    a, sigma = sqrt(bar), sqrt(1 - bar)
    x0, eps, z, towards = v.T @ x0, v.T @ eps, v.T @ z, v.T @ np.linalg.pinv(matrix) @ (matrix @ x0 - y)
    moved = np.empty_like(x0)
    for i, si in enumerate(s):
        if si == 0.0:
            moved[i] = a * x0[i] + sigma * (sqrt(1 - eta**2) * eps[i] + eta * z[i])
        elif a * sigma_y / si <= sigma:
            moved[i] = a * (x0[i] - towards[i]) + sqrt(sigma**2 - (a * sigma_y / si) ** 2) * z[i]
        else:
            share = si * sigma * sqrt(1 - eta**2) / (a * sigma_y)
            moved[i] = a * (x0[i] - share * towards[i]) + eta * sigma * z[i]
    return v @ moved


@pytest.mark.parametrize("sigma_y", [(0.1, 0.2, 0.4), (0.0, 0.0, 0.0)], ids=["noise", "no noise"])
@pytest.mark.parametrize("case", CASES)
def test_ddnm_plus_step_is_the_papers_three_branches(case, sigma_y):
    setting = make_setting(case, sigma_y=sigma_y)
    for jump in JUMPS:
        bar, bar_next = bars_of(jump)
        x, z = state(setting, bar)
        x0 = setting.law.x0(x, bar)
        eps = (x - sqrt(bar) * x0) / sqrt(1 - bar)
        start = Travelled(setting.tensor(x), torch.zeros_like(setting.problem.like))
        moved, _, _ = DDNMPlus(0.7).step(start, step_of(setting, jump), setting.record(z))
        rows = zip(setting.matrices, setting.y, setting.sigma_y, x0, eps, z[0], strict=True)
        wanted = np.stack([ddnm_plus(*row, bar_next, 0.7) for row in rows])
        np.testing.assert_allclose(moved.x.flatten(1), wanted, rtol=1e-6, atol=1e-6, err_msg=str(jump))


# Projections


def projected(x, a, y, z, bar):
    return x + np.linalg.pinv(a) @ (sqrt(bar) * y + sqrt(1 - bar) * a @ z - a @ x)


@pytest.mark.parametrize("case", CASES)
def test_mcg_moves_by_ddim_takes_its_gradient_and_projects(case):
    setting = make_setting(case, sampler=DDIM())
    for jump in JUMPS:
        bar, bar_next = bars_of(jump)
        x, z = state(setting, bar)
        x0, jacobian = setting.law.x0(x, bar), setting.law.jacobian(bar)
        moved, _, _ = MCG(0.3).step(Walk(setting.tensor(x)), step_of(setting, jump), setting.record(z))
        for row, m, xt, a, y, noise in zip(moved.x.flatten(1).numpy(), x0, x, setting.matrices, setting.y, z[0], strict=True):
            r = y - a @ m
            gradient = -jacobian.T @ a.T @ r / np.linalg.norm(r)
            eps = (xt - sqrt(bar) * m) / sqrt(1 - bar)
            there = sqrt(bar_next) * m + sqrt(1 - bar_next) * eps - 0.3 * gradient
            wanted = projected(there, a, y, noise, bar_next)
            np.testing.assert_allclose(row, wanted, rtol=1e-5, atol=1e-6, err_msg=str(jump))


def test_repaint_walks_each_block_again_from_where_it_began():
    setting = make_setting("box")
    plan = RePaint(jump_length=2, repeats=3).plan(Linspace(5), setting.schedule)
    t = [(step.now.t, step.then.t) for step in plan]
    a, b, c, d, e = [level.t for level in Linspace(5)(setting.schedule)[:-1]]
    blocks = [([(a, b), (b, c)], (c, a)), ([(c, d), (d, e)], (e, c)), ([(e, -1)], (-1, e))]
    assert t == [move for block, back in blocks for move in (*block, back, *block, back, *block)]


def test_repaint_replaces_what_is_known_and_goes_back_by_the_forward_process():
    """On the way down the known pixels are √ᾱ y + σ z; on the way back the law of x is that of the noisier level."""
    setting = make_setting("box", sampler=DDIM())
    bar, bar_next = BARS[500], BARS[320]
    x, z = state(setting, bar, draws=2)
    solver, down = RePaint(1, 2), Step(setting.table[500], setting.table[320])
    moved, x0, _ = solver.step(Travelled(setting.tensor(x), setting.tensor(x)), down, setting.record(z))
    for row, m, xt, a, y, noise in zip(
        moved.x.flatten(1).numpy(), x0.flatten(1).numpy(), x, setting.matrices, setting.y, z[0], strict=True
    ):
        eps = (xt - sqrt(bar) * m) / sqrt(1 - bar)
        wanted = projected(sqrt(bar_next) * m + sqrt(1 - bar_next) * eps, a, y, noise, bar_next)
        np.testing.assert_allclose(row, wanted, rtol=1e-6, atol=1e-7)
    back, kept, _ = solver.step(moved, Step(setting.table[320], setting.table[500]), with_rng(setting.problem, RecordedNoise(z[1:])))
    keep = sqrt(bar / bar_next)
    wanted = keep * moved.x.flatten(1).numpy() + sqrt(1 - bar - keep**2 * (1 - bar_next)) * z[1]
    np.testing.assert_allclose(back.x.flatten(1).numpy(), wanted, rtol=1e-9)
    assert torch.equal(kept, x0)


# Adam


@pytest.mark.parametrize("case", ["box", "blur", "super-resolution"])
def test_red_diff_is_torchs_adam_on_its_objective(case):
    """‖y − A μ‖²/(2m) + λ u ⟨ε̂ − z, μ⟩/n with ε̂ fixed, by torch.optim.Adam, an optimiser per image."""
    setting = make_setting(case, batch=2, sigma_y=[0.1, 0.2])
    solver, problem = REDDiff(lr=0.1, lam=0.25), setting.problem
    plan = solver.plan(Linspace(6), setting.schedule)
    draws = np.random.default_rng(1).normal(size=(len(plan), 2, setting.law.side))
    found = solver.solve(setting.record(draws), plan).x0.flatten(1).numpy()
    start = solver.init(problem, plan[0].now).mean.flatten(1)
    for b in range(2):
        a, y = torch.from_numpy(setting.matrices[b]), torch.from_numpy(setting.y[b])
        torch.testing.assert_close(start[b], y if len(y) == setting.law.side else torch.linalg.pinv(a) @ y)
        mean = start[b].clone().requires_grad_()
        optimiser = torch.optim.Adam([mean], lr=0.1, betas=(0.9, 0.99))
        for step, z in zip(plan, draws[:, b], strict=True):
            bar, z = BARS[step.now.t], torch.from_numpy(z)
            x = sqrt(bar) * mean.detach() + sqrt(1 - bar) * z
            x0 = torch.from_numpy(setting.law.x0(x.numpy()[None], bar)[0])
            eps = (x - sqrt(bar) * x0) / sqrt(1 - bar)
            weight = 0.25 * sqrt((1 - bar) / bar)
            loss = (y - a @ mean).square().mean() / 2 + weight * ((eps - z) * mean).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        np.testing.assert_allclose(found[b], mean.detach().numpy(), rtol=1e-6, atol=1e-7)


def test_adam_dps_moves_by_torchs_adam():
    """x_s = x'_s plus the step of torch.optim.Adam for the gradient of the norm, its moments kept along the walk."""
    setting = make_setting("blur", batch=1, sampler=FixedSmall())
    solver = AdamDPS(zeta=0.05, beta1=0.5, beta2=0.8)
    plan = solver.plan(Linspace(6), setting.schedule)
    draws = np.random.default_rng(1).normal(size=(len(plan), 1, setting.law.side))
    found = solver.solve(setting.record(draws), plan, remember=True).trajectory
    a, y = setting.matrices[0], setting.y[0]
    offset = torch.zeros(setting.law.side, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([offset], lr=0.05, betas=(0.5, 0.8))
    for k, step in enumerate(plan):
        x, bar = found[k].flatten(1).numpy(), BARS[step.now.t]
        x0 = setting.law.x0(x, bar)[0]
        r = y - a @ x0
        offset.grad = torch.from_numpy(-setting.law.jacobian(bar).T @ a.T @ r / np.linalg.norm(r))
        before = offset.detach().clone()
        optimiser.step()
        z = draws[k + 1] if k + 1 < len(draws) else np.zeros_like(draws[0])
        plain, _ = problem_move(setting, x, step, z)
        np.testing.assert_allclose(found[k + 1].flatten(), plain.flatten() + (offset.detach() - before), rtol=1e-7, atol=1e-8)


def test_adam_dps_keeps_the_memory_of_its_sampler():
    """At ζ = 0 a walk with a multistep sampler is the unconditional one."""
    setting = make_setting("blur", sampler=make_sampler("dpmpp_2m"))
    plan = AdamDPS().plan(Linspace(6), setting.schedule)
    draws = np.random.default_rng(1).normal(size=(1, 3, setting.law.side))
    found, wanted = (solver.solve(setting.record(draws), plan).x0 for solver in (AdamDPS(zeta=0.0), Unconditional()))
    assert torch.equal(found, wanted)


def problem_move(setting, x, step, z):
    problem = setting.record(z[None])
    tensor = setting.tensor(x)
    return problem.sampler.step(problem.denoiser(tensor, step.now), problem.denoiser, tensor, step.now, step.then, problem.rng, None)


REFUSED = [
    (lambda: MCG(-1.0), r"solver\.zeta"),
    (lambda: RePaint(0), r"solver\.jump_length"),
    (lambda: RePaint(1, 0), r"solver\.repeats"),
    (lambda: REDDiff(lr=0.0), r"solver\.lr"),
    (lambda: AdamDPS(beta2=1.0), r"solver\.beta2"),
    (lambda: DDNMPlus(1.5), r"solver\.eta"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_values_out_of_bounds_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
