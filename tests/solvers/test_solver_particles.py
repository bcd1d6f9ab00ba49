"""TDS and MCGdiff: resampling, one step in dense matrices on the same noise, and the law of whole runs."""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

import closed_form
import numpy as np
import pytest
import torch
from closed_form import Affine, linear_bars
from gaussian_prior import CASES, Case, bars_of, make_setting, state, step_of, with_rng

from diffusion_priors.diffusion.grids import Karras
from diffusion_priors.diffusion.transitions import DDIM, FixedLarge, FixedSmall, LearnedRange
from diffusion_priors.operators.identity import Identity
from diffusion_priors.operators.inpainting import InpaintBox
from diffusion_priors.operators.noise_models import Gaussian, NoNoise
from diffusion_priors.solvers.base import NotApplicable
from diffusion_priors.solvers.mcg_diff import MCGDiff
from diffusion_priors.solvers.resampling import Cloud, effective_size, half_squares, systematic
from diffusion_priors.solvers.tds import TDS

BARS = linear_bars()
P, V = 4, 0.6


# Resampling


def test_the_weight_of_a_large_image_is_summed_in_double_precision():
    """A weight is exp of a sum over 10^6 pixels: an error of the sum is a relative error of the weight."""
    squares = torch.full((1, 1, 1, 1000, 1001), 0.1)
    torch.testing.assert_close(half_squares(squares), 500_500.0 * squares.double()[..., 0, 0, 0], rtol=1e-12, atol=0.0)


def test_systematic_resampling_takes_each_particle_in_proportion_to_its_weight():
    """⌊P w⌋ or ⌈P w⌉ times, and P w on average over u; the particles of an image by its own u."""
    weights = np.array([[0.05, 0.0, 0.35, 0.6], [0.25, 0.25, 0.25, 0.25]])
    log_weights = torch.from_numpy(np.log(np.where(weights > 0.0, weights, 1e-300))) + 7.0
    every = [(i + 0.5) / 1000 for i in range(1000)]
    taken = [systematic(log_weights, torch.tensor([[u], [1.0 - u]], dtype=torch.float64), 4) for u in every]
    counts = np.stack([[(draw == k).sum(1).numpy() for k in range(4)] for draw in taken])
    assert np.abs(counts - 4 * weights.T).max() < 1.0
    np.testing.assert_allclose(counts.mean(0), 4 * weights.T, atol=2e-3)
    one = np.stack([systematic(log_weights, torch.full((2, 1), u, dtype=torch.float64), 1)[:, 0].numpy() for u in every])
    np.testing.assert_allclose([(one == k).mean(0) for k in range(4)], weights.T, atol=2e-3)


def test_the_effective_size_counts_equal_weights_and_needs_no_scale():
    log_weights = torch.log(torch.tensor([[1.0, 1.0, 1.0, 1.0], [1e-9, 1.0, 1e-9, 1.0], [1e-9, 1e-9, 1.0, 1e-9], [1.0, 1.0, 1.0, 3.0]]))
    for shift in (0.0, -1e5, 1e5):
        found = effective_size(log_weights.double() + shift)
        np.testing.assert_allclose(found, [4.0, 2.0, 1.0, 3.0], rtol=1e-6)


# One step


class Draws:
    """z (B, P, D) for the normal draw of a step, u (B,) for the uniform one."""

    def __init__(self, z, u):
        self.z, self.u = z, u

    def normal(self, like):
        return torch.from_numpy(self.z).to(like).view_as(like)

    def uniform(self, like):
        return torch.from_numpy(self.u).to(like).view_as(like)


def resampled(log_w, u, threshold):
    """(parents, log weights after, effective size) of one image, one particle after the other."""
    w = np.exp(log_w - log_w.max())
    w /= w.sum()
    size = 1.0 / (w**2).sum()
    if size >= threshold * len(w):
        return np.arange(len(w)), log_w, size
    places = (np.arange(len(w)) + u) / len(w)
    return np.array([next(k for k in range(len(w)) if place < w[: k + 1].sum()) for place in places]), np.zeros(len(w)), size


def log_normal(x, mean, variance):
    return -((x - mean) ** 2 / variance + np.log(2 * np.pi * variance)).sum() / 2


def move_of(x, x0, bar, bar_next, large):
    """Mean and variance of the DDPM's move on x̂0."""
    beta = 1.0 - bar / bar_next
    score = (sqrt(bar) * x0 - x) / (1 - bar)
    return closed_form.ddpm(x[None], score[None], bar, bar_next)[0], beta if large else beta * (1 - bar_next) / (1 - bar)


def tds_step(law, a, y, sigma_y, x, log_w, z, u, bar, bar_next, threshold, large, clip):
    """Densities and all: log p̃_t, q and p written out; the constants of p̃_s at the next step are left out as in p̃_t here."""
    r2 = V * (1 - bar) / (bar * V + 1 - bar)
    free = law.x0(x, bar)
    x0 = free.clip(-1, 1) if clip else free
    log_twist = np.array([-((y - a @ m) ** 2).sum() / (2 * (r2 + sigma_y**2)) for m in x0])
    parents, log_w, size = resampled(log_w + log_twist, u, threshold)
    moved, after = np.empty_like(x), np.empty(len(x))
    for k, parent in enumerate(parents):
        mean, variance = move_of(x[parent], x0[parent], bar, bar_next, large)
        jacobian = (free[parent] == x0[parent])[:, None] * law.jacobian(bar)
        gradient = jacobian.T @ a.T @ (y - a @ x0[parent]) / (r2 + sigma_y**2)
        if clip:
            guided = (x0[parent] + (1 - bar) / sqrt(bar) * gradient).clip(-1, 1)
            gradient = sqrt(bar) / (1 - bar) * (guided - x0[parent])
        twisted = mean + variance * sqrt(bar / bar_next) * gradient
        moved[k] = twisted + sqrt(variance) * z[k]
        ratio = log_normal(moved[k], mean, variance) - log_normal(moved[k], twisted, variance)
        after[k] = log_w[k] + ratio - log_twist[parent]
    return moved, after, size


def cloud_of(setting, bar):
    """x (B, P, D), log weights (B, P), z and u."""
    rng = np.random.default_rng(11)
    batch, side = len(setting.matrices), setting.law.side
    x = np.stack([state(setting, bar)[0] + 0.1 * rng.normal(size=(batch, side)) for _ in range(P)], 1)
    return x, rng.normal(size=(batch, P)), rng.normal(size=(batch, P, side)), rng.uniform(size=batch)


def run_step(solver, setting, jump, x, log_w, z, u, inner=()):
    shape = (len(x), P, *setting.problem.like.shape[1:])
    cloud = Cloud(torch.from_numpy(x).view(shape), torch.from_numpy(log_w))
    moved, x0, info = solver.step(cloud, step_of(setting, jump)._replace(inner=inner), with_rng(setting.problem, Draws(z, u)))
    return moved.x.flatten(2).numpy(), moved.log_weights.numpy(), info["ess"].numpy(), x0.flatten(1).numpy()


JUMPS = [(990, 900), (500, 420), (40, 4)]


@pytest.mark.parametrize("threshold", [1.0, 0.0])
@pytest.mark.parametrize(("large", "clip"), [(False, False), (True, False), (False, True)], ids=["small", "large", "clamped"])
@pytest.mark.parametrize("case", CASES)
def test_tds_step_is_the_papers_with_every_density_written_out(case, large, clip, threshold):
    """Clamped: x̂0 and what the gradient makes of it stay within [-1, 1], and a saturated pixel passes no gradient."""
    setting = make_setting(case, sampler=FixedLarge() if large else FixedSmall())
    setting.problem.denoiser.clip = clip
    for jump in JUMPS:
        bar, bar_next = bars_of(jump)
        x, log_w, z, u = cloud_of(setting, bar)
        found = run_step(TDS(P, threshold, V), setting, jump, x, log_w, z, u)
        for b, (a, y, sigma_y) in enumerate(zip(setting.matrices, setting.y, setting.sigma_y, strict=True)):
            args = (setting.law, a, y, sigma_y, x[b], log_w[b], z[b], u[b], bar, bar_next, threshold, large, clip)
            for mine, theirs in zip(found, tds_step(*args), strict=False):
                np.testing.assert_allclose(mine[b], theirs, rtol=1e-6, atol=1e-7, err_msg=str(jump))


@pytest.mark.parametrize("case", ["box", "super-resolution"])
def test_the_last_particle_is_drawn_by_its_likelihood(case):
    """Weights w p(y | x̂0), one particle at u of their cumulated sum, in the place of all; x̂0 without guidance."""
    setting, jump = make_setting(case), (40, None)
    bar, _ = bars_of(jump)
    x, log_w, z, u = cloud_of(setting, bar)
    moved, _, size, seen = run_step(TDS(P, 0.5, V), setting, jump, x, log_w, z, u)
    for b, (a, y, sigma_y) in enumerate(zip(setting.matrices, setting.y, setting.sigma_y, strict=True)):
        x0 = setting.law.x0(x[b], bar)
        log = log_w[b] - np.array([((y - a @ m) ** 2).sum() for m in x0]) / (2 * sigma_y**2)
        w = np.exp(log - log.max())
        w /= w.sum()
        wanted = x0[next(k for k in range(P) if u[b] < w[: k + 1].sum())]
        np.testing.assert_allclose(moved[b], np.tile(wanted, (P, 1)), rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(seen[b], wanted, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(size[b], 1.0 / (w**2).sum(), rtol=1e-6)


LEVELS = [990, 900, 500, 420, 150, 80, 40, 4]


def coefficients_of(a, y, sigma_y, grid):
    """V's columns, ȳ, and for each column σ_y/s and ᾱ of its τ, the noisiest of `grid` with (1 − ᾱ)/ᾱ ≤ σ_y²/s², else the last.

    Both are None where s = 0.
    """
    squares, v = np.linalg.eigh(a.T @ a)
    s = np.sqrt(np.where(squares > 1e-10 * squares.max(), squares, 0.0))
    ratio = [sigma_y / si if si > 0.0 else None for si in s]
    own = [None if q is None else next((bar for bar in grid if (1 - bar) / bar <= q**2), grid[-1]) for q in ratio]
    return v, v.T @ np.linalg.pinv(a) @ y, ratio, own


def spread(q, own, bar):
    """Var[√ᾱ ȳ | x_t]: noise of the walk from τ to t, and what ȳ has beyond that of τ."""
    walked = (1 - bar) - bar / own * (1 - own)
    return walked + max(bar * q**2 - bar / own * (1 - own), 0.0)


def mcg_step(law, a, y, sigma_y, x, log_w, z, u, bar, bar_next, threshold):
    grid = BARS[LEVELS]
    v, y_bar, ratio, own = coefficients_of(a, y, sigma_y, grid)
    means = np.stack([v.T @ move_of(row, law.x0(row, bar), bar, bar_next, True)[0] for row in x])
    variance = 1.0 - bar / bar_next
    active = [i for i, tau in enumerate(own) if tau is not None and bar_next <= tau]
    for i in active:
        total = variance + spread(ratio[i], own[i], bar_next)
        log_w = log_w - (sqrt(bar_next) * y_bar[i] - means[:, i]) ** 2 / (2 * total)
    parents, log_w, size = resampled(log_w, u, threshold)
    moved = means[parents] + sqrt(variance) * (z @ v)
    for i in active:
        own_variance = spread(ratio[i], own[i], bar_next)
        gain = variance / (variance + own_variance)
        mean = gain * sqrt(bar_next) * y_bar[i] + (1 - gain) * means[parents, i]
        moved[:, i] = mean + sqrt(own_variance * gain) * (z @ v)[:, i]
        if bar_next < own[i]:
            log_w = log_w + (sqrt(bar_next) * y_bar[i] - moved[:, i]) ** 2 / (2 * own_variance)
    return moved @ v.T, log_w, size


@pytest.mark.parametrize("threshold", [1.0, 0.0])
@pytest.mark.parametrize("sigma_y", [(0.1, 0.2, 0.4), (0.0, 0.0, 0.0)], ids=["noise", "no noise"])
@pytest.mark.parametrize("case", CASES)
def test_mcg_diff_step_is_the_papers_by_eigenvectors(case, sigma_y, threshold):
    """Below, above and across the level of the noise of y."""
    setting = make_setting(case, sampler=FixedLarge(), sigma_y=sigma_y)
    levels = tuple(setting.table[t] for t in LEVELS)
    for jump in pairwise(LEVELS):
        bar, bar_next = bars_of(jump)
        x, log_w, z, u = cloud_of(setting, bar)
        found = run_step(MCGDiff(P, threshold), setting, jump, x, log_w, z, u, levels)
        for b, (a, y, sigma) in enumerate(zip(setting.matrices, setting.y, setting.sigma_y, strict=True)):
            wanted = mcg_step(setting.law, a, y, sigma, x[b], log_w[b], z[b], u[b], bar, bar_next, threshold)
            for mine, theirs in zip(found, wanted, strict=False):
                np.testing.assert_allclose(mine[b], theirs, rtol=1e-5, atol=1e-6, err_msg=str(jump))


# Whole runs


LINE = Case((1, 1, 3), lambda: InpaintBox(size=(1, 1), place=(0, 1)), lambda mask: np.diag([1.0, 0.0, 1.0]))
"""Three correlated pixels, of which the middle one is missing."""


def condition(mean, covariance, a, y, variance):
    """The law of x given y = a x + n."""
    gain = covariance @ a.T @ np.linalg.inv(a @ covariance @ a.T + variance * np.eye(len(a)))
    return mean + gain @ (y - a @ mean), covariance - gain @ a @ covariance


def posterior_of_the_walk(solver, law, bars, large, y, sigma_y):
    """The walk is a Gaussian chain. TDS conditions its end on y, MCGdiff each coefficient at its own level."""
    mean, covariance, known = np.zeros(3), (1 - bars[0]) * np.eye(3), np.diag([1.0, 0.0, 1.0])[[0, 2]]
    own = next(bar for bar in bars if (1 - bar) / bar <= sigma_y**2)
    for bar, bar_next in pairwise(bars):
        move = Affine.of(lambda x, z, b=bar, n=bar_next: closed_form.ddpm(x, law.score(x, b), b, n, z, large), 3)
        mean, covariance = move.moments(mean, covariance)
        if isinstance(solver, MCGDiff) and bar_next == own:
            mean, covariance = condition(mean, covariance, known, sqrt(own) * y, spread(sigma_y, own, own))
    return condition(mean, covariance, known, y, sigma_y**2) if isinstance(solver, TDS) else (mean, covariance)


RUNS = {
    "tds": (TDS(48), FixedSmall()),
    "tds, large": (TDS(48), FixedLarge()),
    "tds, always": (TDS(48, threshold=1.0), FixedLarge()),
    "mcg_diff": (MCGDiff(48), FixedLarge()),
    "mcg_diff, small": (MCGDiff(48), FixedSmall()),
    "mcg_diff, always": (MCGDiff(48, threshold=1.0), FixedLarge()),
}


@pytest.mark.parametrize("name", RUNS)
def test_with_many_particles_it_samples_the_posterior_of_the_walk(name, monkeypatch):
    """Mean and covariance of 1500 runs within 4 standard errors; 48 particles leave a bias below one of them."""
    monkeypatch.setitem(CASES, "line", LINE)
    (solver, sampler), count = RUNS[name], 1500
    setting = make_setting("line", batch=count, sampler=sampler, sigma_y=[0.3], same_measurement=True)
    plan = solver.plan(Karras(24), setting.schedule)
    bars = [*(BARS[step.now.t] for step in plan), 1.0]
    large = isinstance(sampler, FixedLarge)
    mean, covariance = posterior_of_the_walk(solver, setting.law, bars, large, setting.y[0][[0, 2]], setting.sigma_y[0])
    solution = solver.solve(setting.problem, plan)
    x = solution.x0.flatten(1).numpy()
    errors = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / count)
    assert np.abs((x.mean(0) - mean) / np.sqrt(np.diag(covariance) / count)).max() < 4.0
    assert np.abs((np.cov(x.T) - covariance) / errors).max() < 4.0
    assert (solution.info["ess"] > 0.5 * 48).all() and (solution.info["ess"] < 48).all()


# What cannot be taken


def test_samplers_without_a_density_are_not_applicable():
    for solver in (TDS(), MCGDiff()):
        solver.check(Identity(), Gaussian(0.1), DDIM(1.0))
        with pytest.raises(NotApplicable, match="adds none; use sampler=ddpm"):
            solver.check(Identity(), Gaussian(0.1), DDIM(0.0))
    TDS().check(Identity(), Gaussian(0.1), LearnedRange())
    with pytest.raises(NotApplicable, match="one variance for all pixels"):
        MCGDiff().check(Identity(), Gaussian(0.1), LearnedRange())
    with pytest.raises(NotApplicable, match="needs noise"):
        TDS().check(Identity(), NoNoise(), FixedSmall())


@pytest.mark.parametrize(("make", "key"), [(lambda: TDS(0), "particles"), (lambda: MCGDiff(4, 1.5), "threshold")])
def test_values_out_of_bounds_are_refused(make, key):
    with pytest.raises(ValueError, match=rf"solver\.{key}"):
        make()


def test_the_variance_of_the_prior_is_positive():
    with pytest.raises(ValueError, match=r"solver\.prior_variance"):
        TDS(prior_variance=0.0)
