"""A correct solver passes by the values of the table, and each kind of error shows in them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from exact_cases import PRIORS, outcome

from diffusion_priors.diffusion.analytic.priors import law_of
from diffusion_priors.diffusion.grids import Trailing
from diffusion_priors.diffusion.transitions import FixedSmall
from diffusion_priors.evaluation.exact.experiment import Outcome
from diffusion_priors.solvers.base import Guided

SIDE, SIGMA = 4, 0.2


class ExactGuidance(Guided):
    """s̃ = s + ∇ log p(y | x_t), y | x_t ~ N(A x̂0, A C Aᵀ + σ_y² I), C = Cov[x0 | x_t]: exact for a Gaussian prior.

    The arguments introduce errors: `strength` multiplies the likelihood's score (−1: wrong sign, 2: twice too much),
    `sigma_factor` multiplies the noise's standard deviation, and `silent` leaves out the sampler's noise.
    """

    def __init__(self, strength: float = 1.0, sigma_factor: float = 1.0, silent: bool = False) -> None:
        self.strength, self.sigma, self.silent = strength, sigma_factor * SIGMA, silent
        self.law = law_of(PRIORS["gaussian"](SIDE))

    def step(self, state, step, problem):
        return super().step(state, step, replace(problem, rng=Silence()) if self.silent else problem)

    def estimate(self, x, level, problem):
        matrix = problem.measurement.operator.matrix.double()
        units = torch.eye(SIDE, dtype=torch.float64).view(SIDE, *self.law.shape)
        covariance = self.law.covariance_times(units, level, units).flatten(1)
        denoised = problem.denoiser(x, level)
        seen = matrix @ covariance @ matrix.T + self.sigma**2 * torch.eye(len(matrix), dtype=torch.float64)
        residual = problem.measurement.residual(denoised.x0).flatten(1).double()
        pull = (torch.linalg.solve(seen, residual.mT).mT @ matrix @ covariance * (level.alpha / level.sigma**2)).view_as(x).float()
        return denoised.with_score_change(level, self.strength * pull)


class Silence:
    def normal(self, like):
        return torch.zeros_like(like)


@cache
def compared(steps: int = 200, **wrong: float) -> Outcome:
    return outcome(PRIORS["gaussian"](SIDE), ExactGuidance(**wrong), sigma=SIGMA, grid=Trailing(steps), sampler=FixedSmall())


@pytest.mark.slow
def test_exact_guidance_is_as_good_as_exact_samples():
    """With all 1000 steps each value is within 4 standard errors of exact samples (2 posteriors of 400 samples)."""
    found, floor = compared(steps=1000).distances, compared(steps=1000).floor
    assert found["w2"] < 1.3 * floor["w2"]
    assert found["mean"] < 0.1
    assert found["covariance"] < 1.3 * floor["covariance"]
    assert abs(found["spread"] - 1.0) < 4 / (2 * 800) ** 0.5
    assert abs(found["inside_50"] - 0.5) < 4 * (0.25 / 800 + 0.25 / 4000) ** 0.5
    assert abs(found["inside_95"] - 0.95) < 4 * (0.0475 / 800 + 0.0475 / 4000) ** 0.5
    assert found["ranks"] > 0.01


def test_few_steps_make_the_samples_slightly_too_narrow():
    """At 200 steps the distance is still at the floor, but the regions show that DDPM's steps lose some variance."""
    found, floor = compared().distances, compared().floor
    assert found["w2"] < 1.3 * floor["w2"]
    assert found["mean"] < 0.1
    assert 0.53 < found["inside_50"] < 0.63
    assert found["ranks"] > 0.01


def test_exact_samples_have_the_expected_values():
    floor = compared().floor
    assert floor["mean"] == pytest.approx(1 / 400**0.5, rel=0.8)
    assert abs(floor["spread"] - 1.0) < 5 / (2 * 800) ** 0.5
    assert abs(floor["inside_50"] - 0.5) < 5 * (0.25 / 800) ** 0.5 + 0.02
    assert abs(floor["inside_95"] - 0.95) < 5 * (0.0475 / 800) ** 0.5 + 0.01
    assert floor["ranks"] > 0.01


def test_a_wrong_sign_is_detected():
    """The samples move away from the measurement, which every value shows."""
    found, floor = compared(strength=-1.0).distances, compared().floor
    assert found["w2"] > 10 * floor["w2"]
    assert found["mean"] > 10 * floor["mean"]
    assert found["inside_95"] < 0.5
    assert found["ranks"] < 1e-10


def test_a_factor_of_two_is_detected():
    """Twice the guidance makes the samples too narrow along the measured directions, and the truth ranks at the ends."""
    found, floor = compared(strength=2.0).distances, compared().floor
    assert found["w2"] > 1.5 * floor["w2"]
    assert found["covariance"] > 2 * floor["covariance"]
    assert found["ranks"] < 1e-3


def test_a_factor_of_two_in_the_noise_is_detected():
    """With σ_y twice too large the samples are too wide, and their mean is off."""
    found, floor = compared(sigma_factor=2.0).distances, compared().floor
    assert found["w2"] > 1.5 * floor["w2"]
    assert found["mean"] > 2 * floor["mean"]
    assert found["ranks"] < 1e-3


def test_missing_noise_is_detected():
    """The samples collapse: little spread, all within the 50 % region, and the ground truths outside their range."""
    found, floor = compared(silent=True).distances, compared().floor
    assert found["w2"] > 3 * floor["w2"]
    assert found["spread"] < 0.7
    assert found["inside_50"] > 0.65
    assert found["ranks"] < 1e-10


@pytest.mark.slow
def test_results_do_not_depend_on_the_batch_size():
    """A sample is a function of (seed, measurement, sample number): batches of 301 give the samples of one batch, up to rounding."""
    whole = compared()
    whole.experiment.batch_size = 301
    again = whole.experiment.run()
    np.testing.assert_allclose(again.solved.x, whole.solved.x, atol=1e-4)
    np.testing.assert_array_equal(again.exact.x, whole.exact.x)
    assert again.floor == whole.floor
