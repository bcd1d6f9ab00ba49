"""Decoupled annealing posterior sampling (Zhang et al. 2025)."""

from __future__ import annotations

from itertools import pairwise
from math import inf

from torch import Tensor

from diffusion_priors.diffusion.grids import Grid, Karras
from diffusion_priors.diffusion.levels import CLEAN, NoiseLevel
from diffusion_priors.diffusion.samplers import deterministic
from diffusion_priors.diffusion.schedules import Schedule
from diffusion_priors.solvers.base import Info, Problem, Solver, Step
from diffusion_priors.solvers.gaussian_product import conditional_variance
from diffusion_priors.solvers.inner_samplers import InnerSampler


class DAPS(Solver):
    """x0 ~ p(y | x0) N(x0; x̂0(x_t), r² I), x_s = α_s x0 + σ_s z, z fresh (Zhang et al. 2025, Alg. 1).

    x̂0(x_t) is where `ode_steps` Euler steps of the probability flow arrive from x_t, a network call each; `inner` draws x0.
    r = σ_t/α_t as in the official code; with `prior_variance` v it is r² = v u²/(v + u²), u = σ_t/α_t, which is right for a Gaussian
    prior with that variance. The levels of the flow are Karras' with ρ = 7. The official code also has likelihoods with a
    σ_y of its own, 0.01; here σ_y is that of the measurement. The paper takes 200 levels and 5 flow steps, 1000 calls.

    Raises ValueError where `ode_steps` is below 1 or the variance is not positive.
    """

    needs_signal = True

    def __init__(self, inner: InnerSampler, ode_steps: int = 5, prior_variance: float | None = None) -> None:
        if ode_steps < 1:
            raise ValueError(f"the flow needs at least one step, got ode_steps={ode_steps}; set solver.ode_steps")
        if prior_variance is not None and not 0.0 < prior_variance < inf:
            raise ValueError(f"the variance of the prior must be positive, got {prior_variance}; set solver.prior_variance")
        self.inner, self.ode_steps, self.prior_variance = inner, ode_steps, prior_variance
        self.requires = inner.requires

    def plan(self, grid: Grid, schedule: Schedule) -> list[Step]:
        return [step._replace(inner=self._flow(step.now, schedule)) for step in super().plan(grid, schedule)]

    def _flow(self, now: NoiseLevel, schedule: Schedule) -> tuple[NoiseLevel, ...]:
        """The levels between `now` and the noise-free end."""
        if now.noise_to_signal <= schedule.discretised()[0].noise_to_signal:
            return ()
        return tuple(Karras(self.ode_steps, largest=now.noise_to_signal)(schedule)[1:-1])

    def step(self, state: Tensor, step: Step, problem: Problem) -> tuple[Tensor, Tensor, Info]:
        now, then, between = step
        x = state
        for start, end in pairwise((now, *between, CLEAN)):
            x = deterministic(x, problem.denoiser(x, start), start, end)
        ratio = now.noise_to_signal
        variance = ratio**2 if self.prior_variance is None else conditional_variance(now, self.prior_variance)
        x0 = self.inner(x, variance, problem)
        return (x0 if then.sigma == 0.0 else then.diffuse(x0, problem.rng.normal(x0))), x0, {}
