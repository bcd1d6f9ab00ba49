"""Unconditional generation."""

from __future__ import annotations

from diffusion_priors.solvers.base import Solver


class Unconditional(Solver):
    """x_{t−1} = (x_t + (1 − α_t) s_θ(x_t, t))/√α_t + τ z from x_T ~ N(0, I) (the paper's Eq. 2, Sec. 3.4).

    The paper's Eq. 2 leaves out the noise τ z, without which samples collapse to smooth images; Ho et al.
    2020, Alg. 2, has it, and so has every transition here but DDIM at η = 0. y is not looked at.
    """

    uses_measurement = False

    def step(self, x, now, then, problem):
        x0, fraction = problem.denoiser(x, now)
        return problem.transition(x, x0, now, then, problem.rng, fraction), x0
