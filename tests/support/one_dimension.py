"""A Gaussian prior in one dimension, y = s x0 + n, and solvers as the affine maps that they are there: exact means and widths."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, sqrt

import numpy as np
import torch
from closed_form import GaussianLaw
from gaussian_prior import gaussian_prior
from torch import Tensor

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.levels import CLEAN
from diffusion_priors.diffusion.samplers import Sampler
from diffusion_priors.diffusion.schedules import Betas
from diffusion_priors.diffusion.transitions import FixedSmall
from diffusion_priors.operators.linear import LinearOperator
from diffusion_priors.operators.measurement import Measurement
from diffusion_priors.operators.noise_models import Gaussian
from diffusion_priors.operators.spectrum import Diagonal, Spectrum
from diffusion_priors.solvers.base import Problem, Solver

PRIOR_MEAN, PRIOR_VARIANCE, Y = 0.2, 0.25, 0.9
ENDS = 4.0
"""λ = log(α/σ) runs from −4 to 4."""


class Scale(LinearOperator):
    """y = s x0."""

    has_spectrum = True

    def __init__(self, s: float) -> None:
        super().__init__()
        self.s = s

    def forward(self, x0: Tensor) -> Tensor:
        return self.s * x0

    def spectrum(self) -> Spectrum:
        return Diagonal(torch.full((1, 1, 1), self.s, dtype=torch.float64))


class UniformLogSNR(Betas):
    """`steps` levels of a VP schedule at equal distances of λ, ᾱ = 1/(1 + e^{−2λ})."""

    def __init__(self, steps: int) -> None:
        bars = [1.0 / (1.0 + exp(-2.0 * value)) for value in np.linspace(ENDS, -ENDS, steps)]
        super().__init__([1.0 - bar / before for bar, before in zip(bars, [1.0, *bars], strict=False)])


class OneUnit:
    """Hands out zeros, but a one for row 1 + k in draw k of one number per row. Counts the draws."""

    def __init__(self) -> None:
        self.taken = 0

    def normal(self, like: Tensor) -> Tensor:
        z = torch.zeros_like(like)
        if self.taken + 1 < len(like):
            z[self.taken + 1] = 1.0
        self.taken += 1
        return z


@dataclass(frozen=True)
class Width:
    """The law of a solver's result: its mean's distance from the posterior's, in posterior deviations, and the ratio of deviations."""

    bias: float
    ratio: float


def everything(schedule):
    """The grid of all levels."""
    return [*schedule.table[::-1], CLEAN]


def width_of(solver: Solver, steps: int, s: float, sigma_y: float, sampler: Sampler | None = None, grid=everything) -> Width:
    """Exact, for a solver that is affine in x and in the noise: row 0 sees no noise, row 1 + k one unit in draw k."""
    schedule = UniformLogSNR(steps)
    prior = gaussian_prior(GaussianLaw(np.array([PRIOR_MEAN]), np.array([[PRIOR_VARIANCE]])), (1, 1, 1), schedule)
    plan = solver.plan(grid, prior.image_schedule)

    def run(rows: int) -> tuple[np.ndarray, int]:
        like = torch.zeros(rows, 1, 1, 1, dtype=torch.float64)
        operator = Scale(s).draw(like, [np.random.default_rng(0)] * rows)
        y, sigma = torch.full_like(like, Y), torch.full_like(like, sigma_y)
        rng = OneUnit()
        problem = Problem(Denoiser(prior), Measurement(operator, Gaussian(sigma_y), y, sigma), sampler or FixedSmall(), rng, like)
        return solver.solve(problem, plan).x0.flatten().numpy(), rng.taken

    _, draws = run(1)
    x, _ = run(1 + draws)
    precision = 1.0 / PRIOR_VARIANCE + s**2 / sigma_y**2
    mean = (PRIOR_MEAN / PRIOR_VARIANCE + s * Y / sigma_y**2) / precision
    return Width((x[0] - mean) * sqrt(precision), float(np.sqrt(((x[1:] - x[0]) ** 2).sum() * precision)))
