"""The twisted diffusion sampler (Wu et al. 2023)."""

from __future__ import annotations

from math import inf
from typing import cast

import torch
from torch import Tensor

from diffusion_priors.diffusion.transitions import Transition
from diffusion_priors.operators.requirements import NOISE
from diffusion_priors.solvers.base import Info, Problem, Step
from diffusion_priors.solvers.gaussian_product import conditional_variance
from diffusion_priors.solvers.particles import ParticleSolver
from diffusion_priors.solvers.resampling import Cloud, chosen, half_squares


class TDS(ParticleSolver):
    """x_s ~ q = N(μ + (α_t/α_s) τ² g, τ²), w = p(x_s | x_t) p̃_s(x_s)/(p̃_t(x_t) q(x_s | x_t)), g = ∇ log p̃_t (TDS, Wu et al. 2023, Alg. 1).

    p = N(μ, τ²) is the sampler's move and p̃_t(x_t) = N(y; A x̂0(x_t), r² + σ_y²) the twist, with r² = v u²/(v + u²), u = σ_t/α_t, for
    a prior of variance v. As in the official code for images, g is limited to what keeps x̃0 = x̂0 + (σ_t²/α_t) g within [-1, 1], where the
    prior clamps (prior.clip): without it the first steps of an image go astray. That code has v = 0.12² and no σ_y, and moves on
    x̃0, a shift by (α_s/α_t) β g with the variance β of sampler=ddpm_large. Where τ² is smaller, that is too far for the weights.

    Particles are weighed before they move: a step costs one network call and one vector-Jacobian product per particle. The
    last step, to x̂0, is weighed by p(y | x0) and needs no product. With many particles TDS samples the posterior of the
    sampler's own walk, for any A. Noise that is not Gaussian counts as Gaussian with σ_y.

    The weights are those of all pixels together. On images one particle soon has all the weight: `ess` in the records
    shows it, 1 where that is so. The official code resamples at every step (threshold = 1).

    Raises ValueError for fewer than one particle, a threshold outside [0, 1] or a variance that is not positive.
    """

    requires = (NOISE,)
    needs_signal = True

    def __init__(self, particles: int = 8, threshold: float = 0.5, prior_variance: float = 0.25) -> None:
        super().__init__(particles, threshold)
        if not 0.0 < prior_variance < inf:
            raise ValueError(f"the variance of the prior must be positive, got {prior_variance}; set solver.prior_variance")
        self.prior_variance = prior_variance

    def step(self, state: Cloud, step: Step, problem: Problem) -> tuple[Cloud, Tensor, Info]:
        (now, then, _), shape, sampler = step, state.log_weights.shape, cast(Transition, problem.sampler)
        measurement, x = problem.measurement.repeat(self.particles), state.x.flatten(0, 1)
        if then.sigma == 0.0:
            x0 = problem.denoiser(x, now).x0
            likelihood = -(measurement.norm(x0).double() ** 2) / (2.0 * measurement.sigma_y.flatten() ** 2)
            return self.drawn(x0, state.log_weights + likelihood.view(shape), problem)

        denoised, pull_back = problem.denoiser.linearise(x, now)
        norm, slope = measurement.norm_with_gradient(denoised.x0)
        variance = conditional_variance(now, self.prior_variance) + measurement.sigma_y**2
        twist = (-(norm.double() ** 2) / (2.0 * variance.flatten())).view(shape)
        guided = now.guided(denoised.x0, -pull_back(norm.view(-1, 1, 1, 1) * slope / variance))
        guided = guided.clamp(-1.0, 1.0) if problem.denoiser.clip else guided
        gradient = now.alpha**2 / (then.alpha * now.sigma**2) * (guided - denoised.x0)  # in the scale of x_s
        parents, log_weights, info = self.resample(state.log_weights + twist, problem)

        mean, std = sampler.kernel(x, denoised, now, then)
        shift, std, z = std * gradient, std * torch.ones_like(mean), self.noise(problem)
        mean, shift, std = (chosen(rows.unflatten(0, shape), parents) for rows in (mean, shift, std))
        density = -half_squares(shift * (shift + 2.0 * z))  # log p(x_s | x_t) − log q(x_s | x_t)
        moved = Cloud(mean + std * (shift + z), log_weights - chosen(twist, parents) + density)
        return moved, chosen(denoised.x0.unflatten(0, shape), parents)[:, 0], info
