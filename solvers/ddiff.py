"""Dual ascent diffusion (Kim et al. 2026)."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from diffusion_priors.diffusion.denoiser import Denoised
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.solvers.base import Info, Problem, Step, Walk
from diffusion_priors.solvers.proximal import Proximal


class Memory(NamedTuple):
    """What the sampler keeps of earlier levels, and x + u of the step before, (B, C, H, W)."""

    sampler: Any
    lifted: Tensor | None = None


class DDiff(Proximal):
    """u ← u + x − x̂0(x_t), x = prox(x̂0 − u, ρ), x_s = α_s (x + u) + √(σ_s² − c²) ε̂ + τ z, ρ = λ σ_y²/u_t² (DDiff, Kim et al. 2026).

    ADMM for max log p(y | x) + log p(x): DiffPIR with the scaled dual u, which starts at 0 and gathers what y and the prior
    disagree on. ε̂ = (x_t − α_t x)/σ_t and u_t = σ_t/α_t; the sampler moves on x, and the last step gives x. Experimental: there is no
    code, and the paper could not be checked. The order of the updates is that of ADMM: u takes the x̂0 of what x + u became; with
    the x̂0 before it the recursion diverges where λ is small. The paper's data step is one gradient step on ‖y − A(x)‖²; here it is
    the proximal step of ADMM, in closed form or by conjugate gradients for a linear A, by `iterations` of nonlinear ones
    otherwise.

    Raises ValueError where λ is not positive or `iterations` is below 1.
    """

    def __init__(self, lam: float = 7.0, iterations: int = 20) -> None:
        super().__init__(lam, iterations)

    def init(self, problem: Problem, start: NoiseLevel) -> Walk:
        x, sampler = super().init(problem, start)
        return Walk(x, Memory(sampler))

    def step(self, state: Walk, step: Step, problem: Problem) -> tuple[Walk, Tensor, Info]:
        (now, then, _), (sampler, lifted) = step, state.memory
        denoised = problem.denoiser(state.x, now)
        dual = 0.0 * denoised.x0 if lifted is None else lifted - denoised.x0

        def primal(denoised: Denoised, level: NoiseLevel) -> Denoised:
            return denoised._replace(x0=self.prox(denoised.x0 - dual, level, problem))

        def estimate(x: Tensor, level: NoiseLevel) -> Denoised:
            return primal(problem.denoiser(x, level), level)

        near = primal(denoised, now)
        x, memory = problem.sampler.step(near, estimate, state.x, now, then, problem.rng, sampler)
        there = x if then.sigma == 0.0 else x + then.alpha * dual
        return Walk(there, Memory(memory, near.x0 + dual)), near.x0, {}
