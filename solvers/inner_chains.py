"""Markov chains for DAPS: x0 given its estimate and y, for any operator and any noise with a density."""

from __future__ import annotations

from torch import Tensor

from diffusion_priors.operators.requirements import DENSITY
from diffusion_priors.solvers.base import Problem
from diffusion_priors.solvers.inner_samplers import InnerSampler


class Chain(InnerSampler):
    """`steps` of a Markov chain from the mean.

    The step is η = step_size/(1/r² + 1/σ_y²), relative to the largest curvature of a linear A with ‖A‖ ≤ 1: the chain is
    stable at every level. The official code has a step of its own for every task.

    Raises ValueError unless steps ≥ 1 and 0 < step_size < 2.
    """

    requires = (DENSITY,)

    def __init__(self, steps: int = 100, step_size: float = 0.5) -> None:
        if steps < 1:
            raise ValueError(f"the chain needs at least one step, got steps={steps}; set solver.inner.steps")
        if not 0.0 < step_size < 2.0:
            raise ValueError(f"the chain diverges outside 0 < step_size < 2, got {step_size}; set solver.inner.step_size")
        self.steps, self.step_size = steps, step_size

    def eta(self, variance: float, problem: Problem) -> Tensor:
        return self.step_size / (1.0 / variance + 1.0 / problem.measurement.sigma_y**2)

    @staticmethod
    def score(x: Tensor, mean: Tensor, variance: float, problem: Problem) -> Tensor:
        """∇ log of p(y | x) N(x; m, r² I)."""
        return (mean - x) / variance - problem.measurement.nll_gradient(x)


class Langevin(Chain):
    """x ← x + η ∇ log p + √(2η) z."""

    def __call__(self, mean: Tensor, variance: float, problem: Problem) -> Tensor:
        x, eta = mean, self.eta(variance, problem)
        for _ in range(self.steps):
            x = x + eta * self.score(x, mean, variance, problem) + (2.0 * eta).sqrt() * problem.rng.normal(x)
        return x


class HMC(Chain):
    """v ← ρ v + √η ∇ log p + √(2 (1 − ρ)) z, x ← x + √η v: damped Hamiltonian dynamics, as in the official code of DAPS.

    Raises ValueError where the momentum ρ lies outside [0, 1).
    """

    def __init__(self, steps: int = 100, step_size: float = 0.5, momentum: float = 0.5) -> None:
        super().__init__(steps, step_size)
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"the momentum must lie in [0, 1), got {momentum}; set solver.inner.momentum")
        self.momentum = momentum

    def __call__(self, mean: Tensor, variance: float, problem: Problem) -> Tensor:
        x, root = mean, self.eta(variance, problem).sqrt()
        v = problem.rng.normal(x)
        for _ in range(self.steps):
            kick = root * self.score(x, mean, variance, problem)
            v = self.momentum * v + kick + (2.0 * (1.0 - self.momentum)) ** 0.5 * problem.rng.normal(x)
            x = x + root * v
        return x
