"""Every solver under every schedule: x/α at u = σ/α is one process, so that the same draws at the same u give the same restoration.

The prior is one Gaussian. Each schedule has the networks that go with it: ε, v, x0 and score, EDM's behind its preconditioning, and a
flow's velocity.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from configured import make_sampler, make_solver, options
from gaussian_prior import make_setting
from same_ratios import KINDS

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.grids import Linspace
from diffusion_priors.diffusion.image_random import ImageRandom, image_generator
from diffusion_priors.diffusion.samplers import Sampler
from diffusion_priors.diffusion.transitions import FixedSmall
from diffusion_priors.solvers.base import Solver

SETTING = make_setting("random mask")
NOT_THE_SAME = {
    "score_ald": "the paper's Eq. 5 as printed compares x_t = α x0 + σ ε with y, and α is another one under each schedule",
    "ddpm_large": "τ² is Var[x_t | x_s], in the units of x_t and not of x_s",
    "ddpm_learned": "its range ends at the τ² of ddpm_large",
}
"""Solver or sampler of conf/ → why its result depends on the schedule."""


def the_same(group: str) -> list[str]:
    return [option for option in options(group) if option not in NOT_THE_SAME]


def restore(solver: Solver, sampler: Sampler, name: str, reference: str) -> torch.Tensor:
    """Three images, in thirteen steps at the values of σ/α of the reference's schedule."""
    prior = KINDS[name].prior(SETTING.law, tuple(SETTING.problem.like.shape[1:]), KINDS[reference].schedule)
    rng = ImageRandom([image_generator(0, b, "sampling") for b in range(3)])
    problem = replace(SETTING.problem, denoiser=Denoiser(prior), sampler=sampler, rng=rng)
    solution = solver.solve(problem, solver.plan(Linspace(13), prior.image_schedule))
    assert solution.failed_at == [None] * 3
    return solution.x0


@cache
def under_vp(solver: str, reference: str) -> torch.Tensor:
    return restore(make_solver(solver), FixedSmall(), reference, reference)


@pytest.fixture(autouse=True)
def double():
    """Networks are fed the time in double precision too: a float32's rounding of u is what would differ."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


PAIRS = [("linear, eps", "ve, score"), ("linear, eps", "ve, edm"), ("linear, eps", "flow, flow"), ("cosine, v", "flow, edm")]


@pytest.mark.parametrize(("reference", "name"), PAIRS)
@pytest.mark.parametrize("solver", the_same("solver"))
def test_a_solver_restores_the_same_image_under_every_schedule(solver, reference, name):
    found = restore(make_solver(solver), FixedSmall(), name, reference)
    wanted = under_vp(solver, reference)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["ve, edm", "flow, flow"])
@pytest.mark.parametrize("solver", ["unconditional", "ddnm", "dps"])
@pytest.mark.parametrize("sampler", the_same("sampler"))
def test_a_sampler_takes_the_same_walk_under_every_schedule(sampler, solver, name):
    """Alone, under a solver that keeps the network's ε̂, and under one that shifts x between the steps."""
    found, wanted = (restore(make_solver(solver), make_sampler(sampler), kind, "linear, eps") for kind in (name, "linear, eps"))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("solver", "sampler"), [("score_ald", "ddpm"), ("unconditional", "ddpm_large")])
def test_the_exceptions_are_none_without_reason(solver, sampler):
    found, wanted = (restore(make_solver(solver), make_sampler(sampler), kind, "linear, eps") for kind in ("ve, edm", "linear, eps"))
    assert (found - wanted).abs().max() > 0.01
