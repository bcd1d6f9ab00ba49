"""The Langevin solver's samples compared with exact ones."""

from __future__ import annotations

import numpy as np
import pytest
from exact_cases import PRIORS, outcome

from diffusion_priors.diffusion.grids import Quadratic
from diffusion_priors.evaluation.exact.distances import distances
from diffusion_priors.evaluation.exact.experiment import Outcome
from diffusion_priors.solvers.annealing import Likelihood
from diffusion_priors.solvers.score_ald_langevin import ScoreALDLangevin


def langevin(step: float, inner: int) -> Outcome:
    solver = ScoreALDLangevin(Likelihood(), step, inner)
    return outcome(PRIORS["gaussian"](4), solver, grid=Quadratic(50), sigma=0.5, posteriors=1, samples=1000, measurements=0)


@pytest.mark.slow
def test_langevin_samples_with_a_small_step_are_exact_within_sampling_error():
    """64 steps of 0.25 per level: each value is within 4 standard deviations of exact samples. With one step of 1, none is."""
    small, coarse = langevin(0.25, 64), langevin(1.0, 1)
    reference = small.references[0]
    rng = np.random.default_rng(0)
    exact = [distances(reference.posterior.sample(1000, rng), reference, small.directions) for _ in range(60)]
    for key in exact[0]:
        values = np.array([one[key] for one in exact])
        assert abs(small.distances[key] - values.mean()) < 4 * values.std(), key
        assert abs(coarse.distances[key] - values.mean()) > 4 * values.std(), key
