"""Monte Carlo guided diffusion for linear problems (Cardoso et al. 2024)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from diffusion_priors.diffusion.grids import Grid
from diffusion_priors.diffusion.schedules import Schedule
from diffusion_priors.diffusion.transitions import Transition
from diffusion_priors.operators.requirements import SPECTRUM
from diffusion_priors.solvers.base import Info, NotApplicable, Problem, Step
from diffusion_priors.solvers.noised_coefficients import noised_coefficients
from diffusion_priors.solvers.particles import ParticleSolver
from diffusion_priors.solvers.resampling import Cloud, chosen, half_squares


class MCGDiff(ParticleSolver):
    """x_s ~ p(x_s | x_t) g_s(x_s)/∫, w = ∫ p(x_s | x_t) g_s(x_s) dx_s / g_t(x_t), g_t = N(α_t ȳ; x_t, V_t) (MCGdiff, Cardoso et al. 2024).

    p = N(μ, ν) is the sampler's move; ȳ = Uᴴy/s, everything by the coefficients of V. One with σ_y/s = u_τ is as noisy in ȳ as in
    x_τ/α_τ: ȳ counts as its value at level τ. Above τ it is compared through the noise in between, V_t = σ_t² − α_t² u_τ²; below, free.

    x_s = μ + K (α_s ȳ − μ) + √(ν (1 − K)) z, K = ν/(ν + V_s), log w = −(α_s ȳ − μ)²/(2 (ν + V_s)) + (α_t ȳ − x_t)²/(2 V_t)

    Here τ is the first level at or below u_τ, and V counts the rest of ȳ's noise. The official code takes the nearest level with a
    variance of 10⁻⁴ there, divides by g_τ when a coefficient becomes free, and weighs by p(y | x0) at the end: weights without a
    finite variance. Here the condition at τ stays, which is exact where the walk has the joint law of the noising: sampler=ddpm.
    Forward calls only. On images one particle soon has all the weight: `ess` in the records shows it, 1 where that is so.

    Raises ValueError for fewer than one particle or a threshold outside [0, 1].
    """

    requires = (SPECTRUM,)

    def __init__(self, particles: int = 8, threshold: float = 0.5) -> None:
        super().__init__(particles, threshold)

    def check_noise(self, sampler: str, std: float | Tensor) -> None:
        super().check_noise(sampler, std)
        if isinstance(std, Tensor):
            raise NotApplicable(f"MCGDiff needs one variance for all pixels, and {sampler} has one for each; use sampler=ddpm")

    def plan(self, grid: Grid, schedule: Schedule) -> list[Step]:
        """The steps; `inner` are the noisy levels, among which each coefficient has its τ."""
        steps = super().plan(grid, schedule)
        levels = tuple(step.now for step in steps)
        return [step._replace(inner=levels) for step in steps]

    def step(self, state: Cloud, step: Step, problem: Problem) -> tuple[Cloud, Tensor, Info]:
        (now, then, levels), shape, x = step, state.log_weights.shape, state.x.flatten(0, 1)
        denoised = problem.denoiser(x, now)
        if then.sigma == 0.0:
            return self.drawn(denoised.x0, state.log_weights, problem)

        measurement, sampler = problem.measurement.repeat(self.particles), cast(Transition, problem.sampler)
        spectrum = measurement.linear_operator.spectrum()
        target, variance, later = noised_coefficients(measurement, then, levels)
        mean, std = sampler.kernel(x, denoised, now, then)
        mean, nu = spectrum.analyse(mean), cast(float, std) ** 2
        weight = ((target - mean) ** 2 / (nu + variance)).unflatten(0, shape)
        parents, log_weights, info = self.resample(state.log_weights - half_squares(weight), problem)

        mean = chosen(mean.unflatten(0, shape), parents).flatten(0, 1)
        z = spectrum.analyse(self.noise(problem).flatten(0, 1))
        moved = mean + nu / (nu + variance) * (target - mean) + (nu / (1.0 + nu / variance)) ** 0.5 * z
        seen = torch.where(later, (target - moved) ** 2 / variance, 0.0).unflatten(0, shape)
        x = spectrum.synthesise(moved).unflatten(0, shape)
        return Cloud(x, log_weights + half_squares(seen)), chosen(denoised.x0.unflatten(0, shape), parents)[:, 0], info
