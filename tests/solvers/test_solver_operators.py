"""Proximal methods on every operator: linear ones against dense matrices, and phase retrieval."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
import torch
from closed_form import fast_dips
from configured import SCHEDULE, SHAPE, make_problem
from operator_cases import LINEAR, components, dense, random_images

from diffusion_priors.diffusion.grids import Linspace
from diffusion_priors.diffusion.levels import CLEAN
from diffusion_priors.diffusion.transitions import Renoise
from diffusion_priors.operators.noise_models import Gaussian
from diffusion_priors.operators.phase_retrieval import PhaseRetrieval
from diffusion_priors.solvers.base import Step
from diffusion_priors.solvers.ddiff import DDiff
from diffusion_priors.solvers.dds import DDS
from diffusion_priors.solvers.diffpir import DiffPIR
from diffusion_priors.solvers.fast_dips import FastDIPS
from diffusion_priors.solvers.sitcom import SITCOM
from diffusion_priors.solvers.unconditional import Unconditional


@pytest.mark.parametrize("case", LINEAR, ids=str)
def test_proximal_steps_solve_their_systems_on_every_linear_operator(case, tmp_path):
    """DiffPIR: (AᵀA + ρ I)⁻¹(Aᵀy + ρ x̂0). DDS, with iterations enough: (I + γ AᵀA)⁻¹(x̂0 + γ Aᵀy). A as a dense matrix."""
    operator, level, gamma = case.build(SHAPE[1:], tmp_path), SCHEDULE.level(300), 3.0
    problem = make_problem(operator, [5])
    x = random_images(1, *SHAPE, seed=1)
    x0 = problem.denoiser(x, level).x0.detach()
    rho = 7.0 * 0.05**2 / level.noise_to_signal**2
    matrix, y = dense(operator, SHAPE[0]), components(problem.measurement.y)[0]
    for solver, system, pull in (
        (DiffPIR(7.0), matrix.T @ matrix + rho * torch.eye(x.numel()), y @ matrix + rho * x0.flatten()),
        (DDS(gamma, 60), torch.eye(x.numel()) + gamma * matrix.T @ matrix, x0.flatten() + gamma * y @ matrix),
    ):
        with torch.no_grad():
            found = solver.estimate(x, level, problem).x0.flatten()
        wanted = torch.linalg.solve(system, pull)
        assert torch.linalg.vector_norm(found - wanted) <= 2e-4 * torch.linalg.vector_norm(wanted)


@pytest.mark.parametrize("case", LINEAR, ids=str)
def test_fast_dips_is_admm_on_every_linear_operator(case, tmp_path):
    """A complex y counts as its real and imaginary parts, in the steps and in the radius; A as a dense matrix."""
    operator, now = case.build(SHAPE[1:], tmp_path), SCHEDULE.level(300)
    problem = make_problem(operator, [5])
    x = random_images(1, *SHAPE, seed=1)
    with torch.no_grad():
        found, x0, _ = FastDIPS(200.0, 3, 2).step(x, Step(now, CLEAN), problem)
    matrix, y = dense(operator, SHAPE[0]).numpy(), components(problem.measurement.y)[0].numpy()
    kept = problem.measurement.support.expand(problem.measurement.y.shape)
    radius = 0.05 * sqrt(components(torch.complex(kept, kept) if problem.measurement.y.is_complex() else kept).sum())
    wanted = fast_dips(matrix, y, x0.flatten().numpy(), now.noise_to_signal, 200.0, radius, 3, 2)
    np.testing.assert_allclose(found.flatten(), wanted, rtol=1e-7, atol=1e-8)


NONLINEAR = {"diffpir": DiffPIR(7.0, 12), "ddiff": DDiff(7.0, 12)}


@pytest.mark.parametrize("name", NONLINEAR)
def test_the_data_step_of_a_nonlinear_operator_is_its_proximal_step(name):
    """Phase retrieval: the first step is DiffPIR's for both, with ρ = λ σ_y²/u² and the iterations that were asked for."""
    solver, operator = NONLINEAR[name], PhaseRetrieval()
    problem = make_problem(operator, [0, 1], sampler=Renoise(0.0))
    solver.check(operator, Gaussian(0.05), problem.sampler)
    step = solver.plan(Linspace(5), SCHEDULE)[2]
    x = random_images(2, *SHAPE, seed=1)
    with torch.no_grad():
        moved, seen, _ = solver.step(solver.init(problem, step.now)._replace(x=x), step, problem)
        x0 = problem.denoiser(x, step.now).x0
        near = problem.measurement.prox(x0, 7.0 * 0.05**2 / step.now.noise_to_signal**2, 12)
    torch.testing.assert_close(seen, near, rtol=1e-9, atol=1e-9)
    wanted = step.then.alpha * near + step.then.sigma * step.now.eps(x, near)
    torch.testing.assert_close(moved.x, wanted, rtol=1e-9, atol=1e-9)
    assert (problem.measurement.norm(near) < 0.9 * problem.measurement.norm(x0)).all()


@pytest.mark.parametrize("solver", [FastDIPS(200.0, 3, 5), SITCOM(0.02, 10)], ids=lambda solver: type(solver).__name__)
def test_methods_for_any_operator_lower_the_residual_of_phase_retrieval(solver):
    """The x̂0 of the last level fits y better than that of a walk without y."""
    residuals = []
    for method in (solver, Unconditional()):
        problem = make_problem(PhaseRetrieval(), [0, 1])
        solution = method.solve(problem, method.plan(Linspace(6), SCHEDULE))
        residuals.append(problem.measurement.norm(solution.x0))
    assert (residuals[0] < residuals[1]).all()
