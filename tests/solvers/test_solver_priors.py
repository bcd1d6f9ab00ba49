"""prior=gaussian and prior=gmm with every solver, operator, transition and schedule of conf/."""

from __future__ import annotations

import hydra
import pytest
import torch
from configured import make_operator, make_solver, options
from hydra.utils import instantiate

from diffusion_priors.conf import PROJECT
from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.grids import Linspace
from diffusion_priors.diffusion.image_random import ImageRandom, image_generator
from diffusion_priors.diffusion.transitions import FixedSmall
from diffusion_priors.solvers.base import Problem


def make_prior(name: str, schedule: str = "linear", side: int = 16):
    with hydra.initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        config = hydra.compose("sample", overrides=[f"prior={name}", f"schedule@prior.schedule={schedule}", f"prior.size=[{side},{side}]"])
    return instantiate(config.prior, _convert_="all")


def restore(prior, solver, operator, transition):
    """Two images of the prior, measured and restored in five steps, in float32 as a run does."""
    denoiser = Denoiser(prior)
    generators = [image_generator(0, b, "measurement") for b in range(2)]
    x0 = denoiser.network.law.draw(generators).float()
    operator.draw(x0, generators)
    y = operator(x0)
    problem = Problem(
        denoiser=denoiser,
        transition=transition,
        operator=operator,
        y=y,
        sigma_y=torch.full((2, 1, 1, 1), 0.05),
        blank=torch.zeros_like(x0),
        rng=ImageRandom([image_generator(0, b, "sampling") for b in range(2)]),
    )
    return solver.solve(problem, solver.levels(Linspace(5), prior.levels)), x0


@pytest.mark.parametrize("solver", options("solver"))
@pytest.mark.parametrize("name", ["gaussian", "gmm"])
def test_every_solver_and_operator_run_on_it(name, solver, tmp_path):
    prior = make_prior(name)
    for operator in options("operator"):
        solution, x0 = restore(prior, make_solver(solver), make_operator(operator, tmp_path), FixedSmall())
        assert solution.x0.shape == x0.shape
        assert solution.x0.dtype == torch.float32
        assert solution.failed_at == [None, None], operator
        assert solution.x0.isfinite().all()


@pytest.mark.parametrize("schedule", options("schedule"))
@pytest.mark.parametrize("name", ["gaussian", "gmm"])
def test_every_schedule_is_taken(name, schedule):
    """Samples of 250 steps have the deviation of the prior's pixels."""
    prior = make_prior(name, schedule, side=8)
    solver, noise = make_solver("unconditional"), ImageRandom([image_generator(0, b) for b in range(100)])
    blank = torch.zeros(100, 3, 8, 8)
    problem = Problem(Denoiser(prior), FixedSmall(), make_operator("identity", None), blank, blank[:, :1, :1, :1], blank, noise)
    x0 = solver.solve(problem, Linspace(250)(prior.levels)).x0
    exact = Denoiser(prior).network.law.draw([image_generator(1, b) for b in range(100)])
    assert x0.std() == pytest.approx(exact.std().item(), rel=0.1)
