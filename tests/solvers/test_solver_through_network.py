"""LGD-MC and SITCOM, whose gradients go through the network: against finite differences, autograd and torch's Adam."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
import torch
from closed_form import linear_bars, measured
from configured import SCHEDULE, SHAPE, make_problem
from gaussian_prior import CASES, bars_of, make_setting, state, step_of
from operator_cases import random_images

from diffusion_priors.operators.noise_models import Gaussian
from diffusion_priors.operators.phase_retrieval import PhaseRetrieval
from diffusion_priors.solvers.lgd_mc import LGDMC
from diffusion_priors.solvers.pigdm import PiGDM
from diffusion_priors.solvers.sitcom import SITCOM

BARS = linear_bars()
JUMPS = [(990, 900), (500, 320), (40, 4), (40, None)]
every_case = pytest.mark.parametrize("case", CASES)
SIGMA = 0.3


# LGD-MC


def of_one_sigma(case, sigma=SIGMA):
    """A setting whose noise model has the σ_y of every image, as those of a run do."""
    setting = make_setting(case, sigma_y=[sigma])
    setting.problem = replace(setting.problem, measurement=replace(setting.problem.measurement, noise_model=Gaussian(sigma)))
    return setting


@every_case
def test_lgd_mc_is_the_gradient_of_the_log_of_the_mean_likelihood(case):
    """∇_{x_t} log Σᵢ p(y | x̂0 + r zᵢ), by central differences of the logarithm itself with the same draws."""
    v, n, h = 0.6, 5, 1e-5
    setting = of_one_sigma(case)
    draws = np.random.default_rng(2).normal(size=(1, 3, n, setting.law.side))
    for t in (990, 500, 40):
        bar = BARS[t]
        x, _ = state(setting, bar)
        problem = setting.record(draws)
        found = LGDMC(n, v).estimate(setting.tensor(x), setting.table[t], problem)
        assert problem.rng.taken == 1 and found.eps is None
        r = sqrt(v * (1 - bar) / (bar * v + 1 - bar))

        def log_mean(row, b, bar=bar, r=r):
            points = setting.law.x0(row[None], bar) + r * draws[0, b]
            losses = np.square(points @ setting.matrices[b].T - setting.y[b]).sum(1) / (2 * SIGMA**2)
            return -losses.min() + np.log(np.exp(losses.min() - losses).mean())

        for b, row in enumerate(x):
            steps = h * np.eye(len(row))
            gradient = np.array([(log_mean(row + e, b) - log_mean(row - e, b)) / (2 * h) for e in steps])
            wanted = setting.law.x0(row[None], bar)[0] + (1 - bar) / sqrt(bar) * gradient
            np.testing.assert_allclose(found.x0[b].flatten(), wanted, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(found.image[b].flatten(), setting.law.x0(row[None], bar)[0], rtol=1e-9, atol=1e-9)


def test_with_many_samples_lgd_mc_is_pigdm():
    """The mean of p(y | x̂0 + r z) over z is N(y; A x̂0, r² AAᴴ + σ_y²): here within 3 % of the change of x̂0, of 20,000 samples."""
    setting = of_one_sigma("identity", 1.0)
    x, _ = state(setting, BARS[600])
    level = setting.table[600]
    exact = PiGDM(0.6).estimate(setting.tensor(x), level, setting.problem)
    found = LGDMC(20_000, 0.6).estimate(setting.tensor(x), level, setting.problem)
    assert (found.x0 - exact.x0).norm() < 0.03 * (exact.x0 - exact.image).norm()


def test_lgd_mc_of_a_nonlinear_operator_is_the_gradient_autograd_gives():
    """∇_{x_t} of the log of the mean of exp(−nll), phase retrieval, through a network, each image with draws of its own."""
    n, v = 4, 0.25
    problem, again = (make_problem(PhaseRetrieval(), [0, 1], clip=False) for _ in range(2))
    level, x = SCHEDULE.level(400), random_images(2, *SHAPE, seed=1)
    found = LGDMC(n, v).estimate(x, level, problem)
    z = again.rng.normal(x[:, None].expand(-1, n, *SHAPE))
    leaf, u2 = x.clone().requires_grad_(), level.noise_to_signal**2
    around = again.denoiser(leaf, level).x0[:, None] + (v * u2 / (v + u2)) ** 0.5 * z
    y = again.measurement.y[:, None]
    losses = torch.stack([(y[b] - again.measurement.operator(around[b])).square().flatten(1).sum(1) for b in range(2)]) / (2 * 0.05**2)
    (gradient,) = torch.autograd.grad((-losses).logsumexp(1).sum(), leaf)
    torch.testing.assert_close(found.x0, found.image + level.sigma**2 / level.alpha * gradient, rtol=1e-7, atol=1e-8)


# SITCOM


def sitcom(setting, b, x, t, lr, iterations):
    """torch.optim.Adam on ‖y − A x̂0(v)‖² for one image, stopped by its own discrepancy; → x̂0 and the number of iterations."""
    bar, a, y = BARS[t], torch.from_numpy(setting.matrices[b]), torch.from_numpy(setting.y[b])
    radius = setting.sigma_y[b] ** 2 * measured(setting.matrices[b])
    mean, jacobian = torch.from_numpy(setting.law.mean), torch.from_numpy(setting.law.jacobian(bar))
    v = torch.from_numpy(x[b]).clone().requires_grad_()
    optimiser = torch.optim.Adam([v], lr=lr)

    def estimate():
        return mean + jacobian @ (v - sqrt(bar) * mean)

    for k in range(iterations):
        loss = (y - a @ estimate()).square().sum()
        if loss <= radius:
            return estimate().detach().numpy(), k
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return estimate().detach().numpy(), iterations


@every_case
def test_sitcom_step_is_torchs_adam_stopped_image_by_image(case):
    """Images of a batch stop after different numbers of iterations, one of them after none and one not at all."""
    setting, iterations = make_setting(case, batch=4, sigma_y=(0.02, 0.2, 0.3, 5.0)), 12
    problem = setting.problem
    counts = []
    for jump in JUMPS:
        bar, bar_next = bars_of(jump)
        x, z = state(setting, bar)
        problem.denoiser.reset()
        moved, x0, info = SITCOM(0.1, iterations).step(setting.tensor(x), step_of(setting, jump), setting.record(z))
        wanted = [sitcom(setting, b, x, jump[0], 0.1, iterations) for b in range(4)]
        rows, taken = np.stack([row for row, _ in wanted]), [count for _, count in wanted]
        np.testing.assert_allclose(x0.flatten(1), rows, rtol=1e-8, atol=1e-9, err_msg=str(jump))
        np.testing.assert_allclose(moved.flatten(1), sqrt(bar_next) * rows + sqrt(1 - bar_next) * z[0], rtol=1e-8, atol=1e-9)
        assert info["iterations"].tolist() == taken
        assert (problem.denoiser.forwards, problem.denoiser.vjps) == (max(taken) + 1, max(taken))
        counts += taken
    assert {0, iterations} < set(counts)


def test_sitcom_needs_one_call_where_every_image_fits():
    setting = make_setting("box")
    x, z = state(setting, BARS[500])
    problem = setting.record(z)
    problem = replace(problem, measurement=replace(problem.measurement, sigma_y=10.0 * problem.measurement.sigma_y))
    problem.denoiser.reset()
    _, x0, info = SITCOM().step(setting.tensor(x), step_of(setting, (500, 320)), problem)
    np.testing.assert_allclose(x0.flatten(1), setting.law.x0(x, BARS[500]), rtol=1e-9, atol=1e-9)
    assert (problem.denoiser.forwards, problem.denoiser.vjps) == (1, 0) and not info["iterations"].any()


def test_an_image_that_stopped_is_kept_bit_by_bit_while_others_continue():
    """Another image's noise, and with it the number of iterations of the batch, changes nothing of it."""
    setting = make_setting("box", sigma_y=(0.2,))
    x, z = state(setting, BARS[300])
    results = []
    for factor in (2.0, 0.01):
        problem, factors = setting.record(z), torch.tensor([2.0, factor, 2.0], dtype=torch.float64).view(3, 1, 1, 1)
        problem = replace(problem, measurement=replace(problem.measurement, sigma_y=factors * problem.measurement.sigma_y))
        results.append(SITCOM(0.05, 40).step(setting.tensor(x), step_of(setting, (300, 40)), problem))
    (first, _, short), (second, _, long) = results
    assert torch.equal(first[[0, 2]], second[[0, 2]])
    assert 0 < short["iterations"][0] < short["iterations"][2] < long["iterations"][1] == 40


REFUSED = [
    (lambda: LGDMC(0), "samples"),
    (lambda: LGDMC(prior_variance=0.0), "prior_variance"),
    (lambda: SITCOM(lr=0.0), "lr"),
    (lambda: SITCOM(iterations=0), "iterations"),
]


@pytest.mark.parametrize(("make", "key"), REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_values_out_of_bounds_are_refused(make, key):
    with pytest.raises(ValueError, match=rf"set solver\.{key}"):
        make()
