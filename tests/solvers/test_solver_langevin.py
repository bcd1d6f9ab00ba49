"""The Langevin solver's own error, by its closed-form recursion: what is left of it as the step shrinks."""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

import closed_form
import numpy as np
import pytest
from closed_form import Affine, linear_bars
from gaussian_prior import make_setting

from diffusion_priors.diffusion.grids import Quadratic

BARS = linear_bars()
STEPS = [1.0, 0.5, 0.25, 0.125]


def errors(case: str, step: float, inner: int) -> tuple[float, float]:
    """(‖mean − μ‖/√tr C, ‖covariance − C‖/‖C‖) after 49 levels of `inner` steps each, without sampling anything."""
    setting = make_setting(case, batch=1, sigma_y=[0.4])
    law, matrix, y, sigma_y = setting.law, setting.matrices[0], setting.y[0], setting.sigma_y[0]
    gain = law.covariance @ matrix.T @ np.linalg.inv(matrix @ law.covariance @ matrix.T + sigma_y**2 * np.eye(len(y)))
    mu, c = law.mean + gain @ (y - matrix @ law.mean), law.covariance - gain @ matrix @ law.covariance

    def pull(u, variance):
        return -(u @ matrix.T - y) @ matrix / (sigma_y**2 + variance)

    bars = [BARS[level.t] if level.sigma else 1.0 for level in Quadratic(50)(setting.schedule)]
    mean, covariance = np.zeros(law.side), (1 - bars[0]) / bars[0] * np.eye(law.side)
    for bar, _ in pairwise(bars):
        weight = 0.5 / (sigma_y**2 + (1 - bar) / bar)
        turn = Affine.of(lambda u, z, b=bar, w=weight: closed_form.langevin(law, u, b, step, w, pull, [z]), law.side)
        for _ in range(inner):
            mean, covariance = turn.moments(mean, covariance)
    mean, covariance = Affine.of(lambda u, z: law.x0(sqrt(bars[-2]) * u, bars[-2]), law.side).moments(mean, covariance)
    return np.linalg.norm(mean - mu) / np.trace(c) ** 0.5, np.linalg.norm(covariance - c) / np.linalg.norm(c)


@pytest.mark.parametrize("case", ["blur", "super-resolution"])
def test_langevin_reaches_the_exact_posterior_as_its_step_shrinks(case):
    """Half the step and twice the time at each level halve the error of the covariance: slope 1 in the step.

    The chain forgets where it started over 1/step steps, so that `inner` grows as 1/step². At the smallest step a
    thousand samples, whose own errors are about 0.03 and 0.04, could not tell it from the posterior; `test_langevin`
    of tests/evaluation/truth lets them try.
    """
    found = np.array([errors(case, step, round(4 / step**2)) for step in STEPS])
    slope = np.polyfit(np.log(STEPS), np.log(found[:, 1]), 1)[0]
    assert 0.9 < slope < 1.15
    assert (np.diff(found, axis=0) < 0).all()
    assert (found[-1] < (0.015, 0.02)).all()
