"""prior=gaussian, gmm and empirical with every solver, operator, sampler and schedule of conf/."""

from __future__ import annotations

from pkgutil import resolve_name

import hydra
import numpy as np
import pytest
import torch
from configured import make_operator, make_sampler, make_solver, options
from hydra.utils import instantiate
from omegaconf import OmegaConf

from diffusion_priors.conf import PROJECT
from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.grids import Karras, Linspace
from diffusion_priors.diffusion.image_random import ImageRandom, image_generator
from diffusion_priors.diffusion.schedules import Cosine
from diffusion_priors.diffusion.transitions import FixedSmall, Transition
from diffusion_priors.operators.measurement import Measurement
from diffusion_priors.operators.noise_models import Gaussian
from diffusion_priors.solvers.base import NotApplicable, Problem, steps_of


def takes_sampler(solver: str) -> bool:
    """Whether the class named in the solver's yaml file has a sampler. Reading the file is faster than composing the configuration."""
    option = OmegaConf.load(PROJECT / "conf" / "solver" / f"{solver}.yaml")
    return resolve_name(option.get("solver", option)._target_).sampler_type is not None


def make_prior(name: str, schedule: str = "linear", side: int = 16, *own: str):
    with hydra.initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        chosen = [f"prior={name}", f"schedule@prior.schedule={schedule}", f"prior.size=[{side},{side}]", *own]
        config = hydra.compose("sample", overrides=chosen)
    return instantiate(config.prior, _convert_="all")


def restore(prior, solver, operator, sampler):
    """Two images of the prior, measured and restored in five steps, in float32 as a run does."""
    denoiser = Denoiser(prior)
    generators = [image_generator(0, b, "measurement") for b in range(2)]
    x0 = denoiser.network.law.draw(generators).float()
    operator.draw(x0, generators)
    problem = Problem(
        denoiser=denoiser,
        measurement=Measurement.of(operator, Gaussian(0.05), x0, generators),
        sampler=sampler,
        rng=ImageRandom([image_generator(0, b, "sampling") for b in range(2)]),
        like=torch.zeros_like(x0),
    )
    return solver.solve(problem, solver.plan(Linspace(5), prior.image_schedule)), x0


@pytest.mark.parametrize("solver", options("solver"))
@pytest.mark.parametrize("name", ["gaussian", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gmm", "empirical"))])
def test_every_solver_and_operator_run_on_it(name, solver, tmp_path):
    """Two solvers meet every operator, the others six: a solver sees an operator only through its methods."""
    prior, method, applicable = make_prior(name), make_solver(solver), []
    few = ["identity", "inpaint_box", "super_resolution", "random_matrix", "mri", "phase_retrieval"]
    for option in options("operator") if name == "gaussian" and solver in ("dps", "diffpir") else few:
        operator = make_operator(option, tmp_path)
        try:
            method.check(operator, Gaussian(0.05), FixedSmall())
        except NotApplicable:
            continue
        solution, x0 = restore(prior, method, operator, FixedSmall())
        applicable.append(option)
        assert solution.x0.shape == x0.shape
        assert solution.x0.dtype == torch.float32
        assert solution.failed_at == [None, None], option
        assert solution.x0.isfinite().all()
    assert {"identity", "inpaint_box", "super_resolution"} <= set(applicable)


@pytest.mark.parametrize("sampler", options("sampler"))
@pytest.mark.parametrize("solver", [name for name in options("solver") if takes_sampler(name)])
def test_every_solver_that_takes_a_sampler_takes_every_sampler(solver, sampler, tmp_path):
    prior = make_prior("gaussian")
    if sampler == "ddpm_learned":
        pytest.skip("needs learned variance, which no exact prior has")
    method, operator, move = make_solver(solver), make_operator("inpaint_box", tmp_path), make_sampler(sampler)
    try:
        method.check(operator, Gaussian(0.05), move)
    except NotApplicable:
        assert method.sampler_type is Transition
        pytest.skip("moves with the density of a transition that adds noise")
    solution, _ = restore(prior, method, operator, move)
    assert solution.failed_at == [None, None]


@pytest.mark.parametrize("schedule", options("schedule"))
@pytest.mark.parametrize("name", ["gaussian", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gmm", "empirical"))])
def test_every_schedule_is_taken(name, schedule, tmp_path):
    """Samples of 250 steps have the deviation of the prior's pixels."""
    np.save(tmp_path / "betas.npy", Cosine().betas)
    own = [f"prior.schedule.betas={tmp_path / 'betas.npy'}"] if schedule == "betas" else []
    prior = make_prior(name, schedule, 8, *own)
    grid = Linspace(250) if prior.schedule.table else Karras(250, largest=100.0)
    rng = ImageRandom([image_generator(0, b) for b in range(100)])
    problem = Problem(Denoiser(prior), None, FixedSmall(), rng, torch.zeros(100, 3, 8, 8))
    x0 = make_solver("unconditional").solve(problem, steps_of(grid(prior.image_schedule))).x0
    exact = Denoiser(prior).network.law.draw([image_generator(1, b) for b in range(100)])
    assert x0.std() == pytest.approx(exact.std().item(), rel=0.1)
