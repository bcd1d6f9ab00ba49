"""What methods share that replace the measured part of x_t by the measurement at its level."""

from __future__ import annotations

from torch import Tensor

from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.solvers.base import Problem


def project(x: Tensor, level: NoiseLevel, problem: Problem) -> Tensor:
    """x + A⁺(α y + σ A z − A x): the part of x in the range of Aᴴ becomes that of y at `level`, with noise z shaped like x."""
    measurement, operator = problem.measurement, problem.measurement.linear_operator
    target = level.alpha * measurement.y
    if level.sigma > 0.0:
        target = target + level.sigma * measurement.support * operator(problem.rng.normal(x))
    return x + operator.pinv(measurement.support * (target - operator(x)))
