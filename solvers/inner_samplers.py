"""How DAPS draws x0 given its estimate and y: exactly where A is linear, by a Markov chain otherwise."""

from __future__ import annotations

from torch import Tensor

from diffusion_priors.operators.requirements import LINEAR, Requirement
from diffusion_priors.solvers.base import Problem
from diffusion_priors.solvers.gaussian_product import sample_product


class InnerSampler:
    """Draws x ~ p(y | x) N(x; m, r² I)."""

    requires: tuple[Requirement, ...] = ()

    def __call__(self, mean: Tensor, variance: float, problem: Problem) -> Tensor:
        raise NotImplementedError


class Exact(InnerSampler):
    """An independent sample of the Gaussian product, for linear A and Gaussian noise."""

    requires = (LINEAR,)

    def __call__(self, mean: Tensor, variance: float, problem: Problem) -> Tensor:
        return sample_product(mean, variance, problem.measurement, problem.rng)
