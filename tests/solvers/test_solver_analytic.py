"""The priors whose law is known, as configured, under every solver, operator and schedule as configured."""

from __future__ import annotations

from functools import cache

import hydra
import pytest
import torch
from configured import make_operator, make_problem, make_solver, options
from hydra.utils import instantiate

from conf import PROJECT
from diffusion.denoiser import Denoiser
from diffusion.grids import Linspace
from diffusion.priors import Prior
from solvers.base import Problem


@cache
def make_prior(name: str, schedule: str) -> Prior:
    overrides = [f"prior={name}", "prior.size=[16,16]", f"schedule@prior.schedule={schedule}"]
    with hydra.initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        node = hydra.compose("sample", overrides=overrides).prior
    return instantiate(node, _convert_="all")


@pytest.mark.parametrize("schedule", options("schedule"))
@pytest.mark.parametrize("operator", options("operator"))
@pytest.mark.parametrize("prior", ["gaussian", "gmm"])
def test_every_solver_restores_under_a_law_that_is_known(prior, operator, schedule, tmp_path):
    """To finite pictures, with as many calls of the exact network as of any other."""
    made = make_prior(prior, schedule)
    other = make_problem(make_operator(operator, tmp_path), [0, 1])
    for name in options("solver"):
        solver = make_solver(name)
        levels = solver.levels(Linspace(12), made.levels)
        problem = Problem(**{**other.__dict__, "denoiser": Denoiser(made)})
        solution = solver.solve(problem, levels)
        assert solution.failed_at == [None, None], name
        assert torch.isfinite(solution.x0).all(), name
        assert solution.forwards >= len(levels) - 1 and solution.vjps == (len(levels) - 1 if solver.needs_gradient else 0), name
