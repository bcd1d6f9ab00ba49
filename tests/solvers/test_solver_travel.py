"""DDNM and DDNM+ that go back and take their steps again: whole walks against their recursions in dense matrices, with the same noise."""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

import numpy as np
import pytest
from closed_form import linear_bars
from gaussian_prior import make_setting

from diffusion_priors.diffusion.grids import Linspace
from diffusion_priors.diffusion.multistep import DPMSolver2M
from diffusion_priors.diffusion.transitions import DDIM
from diffusion_priors.solvers.ddnm import DDNM
from diffusion_priors.solvers.ddnm_plus import DDNMPlus

BARS = linear_bars()
ETA = 0.6
WALK = [0, 1, 2, 0, 1, 2, 3, 4, 2, 3, 4]
"""Levels of a grid of four, 4 its clean end: two steps, back, the two again, and the same for the other two."""


def ddnm_move(a, y, sigma_y, x0, eps, bar, bar_next, z):
    """x̃0 = x̂0 + A⁺(y − A x̂0), then DDIM with the network's ε̂; → x, x̃0."""
    near = x0 + np.linalg.pinv(a) @ (y - a @ x0)
    tau = ETA * sqrt((1 - bar_next) / (1 - bar) * (1 - bar / bar_next))
    return sqrt(bar_next) * near + sqrt(1 - bar_next - tau**2) * eps + tau * z, near


def ddnm_plus_move(a, y, sigma_y, x0, eps, bar, bar_next, z):
    """Wang et al. 2023, Eq. 17–18, for an A with singular values 0 and 1/2 (block means); → x, x̃0."""
    inside = np.linalg.pinv(a) @ a
    n, sigma = sqrt(bar_next) * sigma_y / 0.5, sqrt(1 - bar_next)
    full = n <= sigma
    share = 1.0 if full else sigma * sqrt(1 - ETA**2) / n
    near = x0 + share * np.linalg.pinv(a) @ (y - a @ x0)
    seen = sqrt(sigma**2 - n**2) * z if full else ETA * sigma * z
    free = sigma * (sqrt(1 - ETA**2) * eps + ETA * z)
    return sqrt(bar_next) * near + inside @ seen + free - inside @ free, near


METHODS = {"ddnm": (DDNM, ddnm_move), "ddnm_plus": (lambda *counts: DDNMPlus(ETA, *counts), ddnm_plus_move)}


@pytest.mark.parametrize("name", METHODS)
def test_a_walk_with_travels_is_that_of_the_recursion(name):
    """On the way back the image is x̃0, corrected by y, with fresh noise of the level; the last steps are taken again too."""
    make, move = METHODS[name]
    setting = make_setting("super-resolution", sampler=DDIM(ETA))
    solver = make(2, 2)
    plan = solver.plan(Linspace(4), setting.schedule)
    draws = np.random.default_rng(3).normal(size=(1 + len(plan), 3, setting.law.side))
    solution = solver.solve(setting.record(draws), plan, remember=True)

    grid = [BARS[level.t] for level in Linspace(4)(setting.schedule)[:-1]] + [1.0]
    x, taken, near = sqrt(1 - grid[0]) * draws[0], 1, None
    for k, (here, there) in enumerate(pairwise(WALK)):
        bar, bar_next = grid[here], grid[there]
        z = draws[min(taken, len(draws) - 1)]
        if there < here:
            x, taken = sqrt(bar_next) * near + sqrt(1 - bar_next) * z, taken + 1
        else:
            x0 = setting.law.x0(x, bar)
            eps = (x - sqrt(bar) * x0) / sqrt(1 - bar)
            z = z if name == "ddnm_plus" or bar_next < 1.0 else 0.0 * z
            rows = [
                move(*row, bar, bar_next, noise)
                for *row, noise in zip(setting.matrices, setting.y, setting.sigma_y, x0, eps, z, strict=True)
            ]
            x, near = np.stack([row for row, _ in rows]), np.stack([row for _, row in rows])
            taken += name == "ddnm_plus" or bar_next < 1.0
        np.testing.assert_allclose(solution.trajectory[k + 1].flatten(1), x, rtol=1e-7, atol=1e-7, err_msg=f"{here} to {there}")
    assert len(plan) == len(WALK) - 1 and solution.forwards == 8


def test_one_repeat_is_no_travel():
    """Whatever the length: the same plan and the same image."""
    setting = make_setting("box", sampler=DDIM(ETA))
    results = []
    for solver in (DDNM(), DDNM(3, 1)):
        plan = solver.plan(Linspace(5), setting.schedule)
        draws = np.random.default_rng(3).normal(size=(6, 3, setting.law.side))
        results.append(solver.solve(setting.record(draws), plan).x0)
        assert len(plan) == 5
    assert (results[0] == results[1]).all()


def test_a_multistep_sampler_starts_again_after_a_travel():
    """Its memory is of levels below: the first step after going back is of first order."""
    setting = make_setting("box", sampler=DPMSolver2M())
    solver = DDNM(2, 2)
    plan = solver.plan(Linspace(4), setting.schedule)
    draws = np.random.default_rng(3).normal(size=(8, 3, setting.law.side))
    trajectory = solver.solve(setting.record(draws), plan, remember=True).trajectory
    x, (now, then, _) = trajectory[3], plan[3]
    denoised = solver.estimate(x, now, setting.problem)
    first_order = then.alpha * denoised.x0 + then.sigma * denoised.eps
    np.testing.assert_allclose(trajectory[4], first_order, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", [DDNM, lambda *counts: DDNMPlus(0.85, *counts)])
@pytest.mark.parametrize(("counts", "key"), [((0, 1), "travel_length"), ((1, 0), "travel_repeats")])
def test_counts_below_one_are_refused(make, counts, key):
    with pytest.raises(ValueError, match=rf"{key} must be at least 1, got 0; set solver\.{key}"):
        make(*counts)
