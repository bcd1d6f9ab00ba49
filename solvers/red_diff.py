"""RED-diff: a variational approximation by regularisation by denoising (Mardani et al. 2024)."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from torch import Tensor

from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.operators.requirements import INITIAL_IMAGE
from diffusion_priors.solvers.adam import Moments
from diffusion_priors.solvers.base import Info, Problem, Solver, Step


class Estimate(NamedTuple):
    """The mean μ (B, C, H, W), and Adam's moments of its gradient."""

    mean: Tensor
    moments: Moments


class REDDiff(Solver):
    """μ ← μ − lr Adam(g), g = Aᴴ(A μ − y)/m + λ u (ε̂(α μ + σ z) − z)/n, u = σ_t/α_t (Mardani et al. 2024, Alg. 1).

    One noise level per step, from the noisiest down, z fresh; no gradient passes through the network. It minimises
    ‖y − A μ‖²/(2m) + λ u ⟨ε̂ − z, μ⟩/n, m numbers in y and n in x0, from μ = A⁺y: an estimate of the mode, not a sample. Settings of the
    official code: lr = 0.1, β = (0.9, 0.99), λ = 0.25, 1000 steps. The official code returns the network's x̂0 at the step
    before the last; this returns μ. σ_y enters nowhere: λ must follow it.

    Raises ValueError where lr or λ is not positive.
    """

    requires = (INITIAL_IMAGE,)
    needs_signal = True
    betas = (0.9, 0.99)

    def __init__(self, lr: float = 0.1, lam: float = 0.25) -> None:
        for name, value in (("lr", lr), ("lam", lam)):
            if not 0.0 < value < inf:
                raise ValueError(f"{name} must be positive and finite, got {value}; set solver.{name}")
        self.lr, self.lam = lr, lam

    def init(self, problem: Problem, start: NoiseLevel) -> Estimate:
        image = problem.measurement.operator.initial_image(problem.measurement.y)
        assert image is not None  # INITIAL_IMAGE
        return Estimate(image.to(problem.like), Moments.zero(problem.like))

    def step(self, state: Estimate, step: Step, problem: Problem) -> tuple[Estimate, Tensor, Info]:
        level, mean = step.now, state.mean
        z = problem.rng.normal(mean)
        x = level.diffuse(mean, z)
        x0 = problem.denoiser(x, level).x0
        data = problem.measurement.squared_residual_gradient(mean) / (2.0 * problem.measurement.y[0].numel())
        gradient = data + self.lam * level.noise_to_signal * (level.eps(x, x0) - z) / mean[0].numel()
        moments, direction = state.moments.after(gradient, *self.betas)
        return Estimate(mean - self.lr * direction, moments), x0, {}

    def image(self, state: Estimate) -> Tensor:
        return state.mean
