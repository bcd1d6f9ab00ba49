"""Small problems with a known posterior, and runs on them."""

from __future__ import annotations

import numpy as np

from diffusion_priors.diffusion.analytic.laws import Law
from diffusion_priors.diffusion.analytic.means import Given
from diffusion_priors.diffusion.analytic.priors import gaussian, mixture
from diffusion_priors.diffusion.analytic.shapes import RandomRotation
from diffusion_priors.diffusion.grids import Grid, Trailing
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.samplers import Sampler
from diffusion_priors.diffusion.schedules import Linear
from diffusion_priors.diffusion.transitions import FixedSmall
from diffusion_priors.evaluation.exact.experiment import ExactExperiment, Outcome
from diffusion_priors.evaluation.exact.problem import ExactProblem
from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.noise_models import Gaussian
from diffusion_priors.operators.random_matrix import RandomMatrix
from diffusion_priors.solvers.base import Solver
from diffusion_priors.solvers.method import Method

PRIORS = {
    "gaussian": lambda side: gaussian(Linear(), RandomRotation(0.05, 0.5), size=(1, side), channels=1, mean=0.2),
    "mixture": lambda side: mixture(
        Linear(),
        RandomRotation(0.03, 0.2),
        Given([[-0.7], [0.5]]),
        size=(1, side),
        channels=1,
        weights=[0.35, 0.65],
    ),
}


def experiment(
    prior: Prior,
    solver: Solver,
    operator: Operator | None = None,
    sigma: float = 0.2,
    grid: Grid | None = None,
    sampler: Sampler | None = None,
    **sizes: int,
) -> ExactExperiment:
    """Checked and ready to run, by default with two posteriors of 400 samples and a hundred measurements."""
    sizes = {"posteriors": 2, "samples": 400, "measurements": 100, "ranks": 19} | sizes
    method = Method(
        prior=prior,
        operator=operator or RandomMatrix(rows=2),
        noise_model=Gaussian(sigma),
        solver=solver,
        grid=grid or Trailing(100),
        sampler=sampler or FixedSmall(),
    )
    made = ExactExperiment(
        method=method,
        exact_problem=ExactProblem("test", **sizes),
        batch_size=10_000,
    )
    made.check()
    return made


def outcome(*args, **kwargs) -> Outcome:
    return experiment(*args, **kwargs).run()


def draws(law: Law, count: int, seed: int = 0) -> np.ndarray:
    """(count, D) draws from a law, made with numpy alone."""
    rng = np.random.default_rng(seed)
    components = law.components()
    numbers = rng.multinomial(count, [weight for weight, _ in components])
    parts = [
        rng.multivariate_normal(part.mean.flatten().numpy(), part.covariance.dense().numpy(), number)
        for number, (_, part) in zip(numbers, components, strict=True)
    ]
    return np.concatenate(parts)
