"""A solver that is right passes by the table's figures, and each way of getting it wrong is caught by them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from exact_cases import PRIORS, outcome

from diffusion_priors.diffusion.analytic.priors import law_of
from diffusion_priors.diffusion.grids import Trailing
from diffusion_priors.diffusion.transitions import FixedSmall
from diffusion_priors.evaluation.exact.experiment import Outcome
from diffusion_priors.solvers.base import Solver

SIDE, SIGMA = 4, 0.2


class ExactGuidance(Solver):
    """s̃ = s + ∇ log p(y | x_t), y | x_t ~ N(A x̂0, A C Aᵀ + σ_y² I), C = Cov[x0 | x_t]: exact for a Gaussian prior.

    What is wrong with it is told by its arguments: `strength` multiplies the likelihood's score (−1: its sign is wrong,
    2: a factor 2 too much), `sigma_factor` the noise's standard deviation, `silent` forgets the sampler's noise.
    """

    def __init__(self, strength: float = 1.0, sigma_factor: float = 1.0, silent: bool = False) -> None:
        self.strength, self.sigma, self.silent = strength, sigma_factor * SIGMA, silent
        self.law = law_of(PRIORS["gaussian"](SIDE))

    def step(self, x, now, then, problem):
        matrix = problem.operator.matrix.double()
        units = torch.eye(SIDE, dtype=torch.float64).view(SIDE, *self.law.shape)
        covariance = self.law.covariance_times(units, now, units).flatten(1)
        x0 = problem.denoiser(x, now).x0
        seen = matrix @ covariance @ matrix.T + self.sigma**2 * torch.eye(len(matrix), dtype=torch.float64)
        residual = problem.residual(x0).flatten(1).double()
        pull = (torch.linalg.solve(seen, residual.mT).mT @ matrix @ covariance * (now.alpha / now.sigma**2)).view_as(x).float()
        noise = Silence() if self.silent else problem.rng
        return problem.transition(x, now.guided(x0, self.strength * pull), now, then, noise), x0


class Silence:
    def normal(self, like):
        return torch.zeros_like(like)


@cache
def judged(steps: int = 200, **wrong: float) -> Outcome:
    return outcome(PRIORS["gaussian"](SIDE), ExactGuidance(**wrong), sigma=SIGMA, grid=Trailing(steps), transition=FixedSmall())


def test_exact_guidance_is_as_good_as_exact_samples():
    """With all 1000 steps no figure tells it from them: each within 4 standard errors of 800 samples (2 posteriors of 400)."""
    found = judged(steps=1000)
    figures, floor = found.figures, found.floor
    assert figures["w2"] < 1.3 * floor["w2"]
    assert figures["mean"] < 0.1
    assert figures["covariance"] < 1.3 * floor["covariance"]
    assert abs(figures["spread"] - 1.0) < 4 / (2 * 800) ** 0.5
    assert abs(figures["inside_50"] - 0.5) < 4 * (0.25 / 800 + 0.25 / 4000) ** 0.5
    assert abs(figures["inside_95"] - 0.95) < 4 * (0.0475 / 800 + 0.0475 / 4000) ** 0.5
    assert figures["ranks"] > 0.01


def test_a_sampler_of_few_steps_is_a_little_too_narrow():
    """At 200 steps the distance is still the floor's; the regions already tell that DDPM's steps lose some variance."""
    figures, floor = judged().figures, judged().floor
    assert figures["w2"] < 1.3 * floor["w2"]
    assert figures["mean"] < 0.1
    assert 0.53 < figures["inside_50"] < 0.63
    assert figures["ranks"] > 0.01


def test_exact_samples_have_the_figures_they_should():
    floor = judged().floor
    assert floor["mean"] == pytest.approx(1 / 400**0.5, rel=0.8)
    assert abs(floor["spread"] - 1.0) < 5 / (2 * 800) ** 0.5
    assert abs(floor["inside_50"] - 0.5) < 5 * (0.25 / 800) ** 0.5 + 0.02
    assert abs(floor["inside_95"] - 0.95) < 5 * (0.0475 / 800) ** 0.5 + 0.01
    assert floor["ranks"] > 0.01


def test_a_wrong_sign_is_caught():
    """The samples flee the measurement: every figure says so."""
    figures, floor = judged(strength=-1.0).figures, judged().floor
    assert figures["w2"] > 10 * floor["w2"]
    assert figures["mean"] > 10 * floor["mean"]
    assert figures["inside_95"] < 0.5
    assert figures["ranks"] < 1e-10


def test_a_factor_of_two_is_caught():
    """Guided twice as strongly, samples are too sure: too narrow where A looks, and the truth ranks at the ends."""
    figures, floor = judged(strength=2.0).figures, judged().floor
    assert figures["w2"] > 1.5 * floor["w2"]
    assert figures["covariance"] > 2 * floor["covariance"]
    assert figures["ranks"] < 1e-3


def test_a_factor_of_two_in_the_noise_is_caught():
    """Taking σ_y for twice what it is leaves samples too wide, and off the mean."""
    figures, floor = judged(sigma_factor=2.0).figures, judged().floor
    assert figures["w2"] > 1.5 * floor["w2"]
    assert figures["mean"] > 2 * floor["mean"]
    assert figures["ranks"] < 1e-3


def test_missing_noise_is_caught():
    """Samples collapse: hardly any spread, all within the 50 % region, truths outside their range."""
    figures, floor = judged(silent=True).figures, judged().floor
    assert figures["w2"] > 3 * floor["w2"]
    assert figures["spread"] < 0.7
    assert figures["inside_50"] > 0.65
    assert figures["ranks"] < 1e-10


def test_figures_are_the_same_in_any_batches_and_for_the_same_seed():
    """Rows are functions of (seed, measurement, sample): batches of 301 give the cloud of one batch, but for rounding."""
    whole = judged()
    made = whole.truth
    made.batch_size = 301
    again = made.run()
    np.testing.assert_allclose(again.solved.x, whole.solved.x, atol=1e-4)
    np.testing.assert_array_equal(again.exact.x, whole.exact.x)
    assert again.floor == whole.floor
