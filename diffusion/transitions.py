"""Transitions: one move as a Gaussian kernel. DDPM, DDIM and DiffPIR's re-noising are one formula."""

from __future__ import annotations

from math import sqrt
from typing import Any

import torch
from torch import Tensor

from diffusion_priors.diffusion.denoiser import Denoised
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.samplers import Estimate, Random, Sampler

NEEDS_VARIANCE = "sampler=ddpm_learned needs a prior with learned variance, and this one has none; use sampler=ddpm"


class Transition(Sampler):
    """x_s = a_s x̂0 + √(σ_s² − c²) ε̂ + τ z, ε̂ = (x_t − a_t x̂0)/σ_t (Song et al. 2021, Eq. 12).

    With c = τ = √β̃ this is the DDPM posterior (Ho et al. 2020, Eq. 6–7), with c = τ = 0 it is
    DDIM; the transitions differ in c and τ alone. x̂0 may be clamped or guided: ε̂ follows it unless the estimate
    brings its own. Nothing here assumes α² + σ² = 1. No noise is added on the way to a noise-free level.
    """

    needs_variance = False

    def kernel(self, x: Tensor, denoised: Denoised, now: NoiseLevel, then: NoiseLevel) -> tuple[Tensor, float | Tensor]:
        """The mean (B, C, H, W) and standard deviation of x at `then`, given `x` at `now` and the estimate there."""
        if then.sigma == 0.0:
            return then.alpha * denoised.x0, 0.0
        c, tau = self.noise_split(now, then, denoised.variance_fraction)
        keep = sqrt(max(then.sigma**2 - c**2, 0.0)) / now.sigma
        if denoised.eps is not None:
            return torch.add(then.alpha * denoised.x0, denoised.eps, alpha=keep * now.sigma), tau
        return torch.add((then.alpha - keep * now.alpha) * denoised.x0, x, alpha=keep), tau

    def step(
        self, denoised: Denoised, estimate: Estimate, x: Tensor, now: NoiseLevel, then: NoiseLevel, rng: Random, memory: Any
    ) -> tuple[Tensor, Any]:
        mean, std = self.kernel(x, denoised, now, then)
        if isinstance(std, Tensor):
            return mean.addcmul(std, rng.normal(x)), memory
        return (mean if std == 0.0 else mean.add(rng.normal(x), alpha=std)), memory

    def check(self, learned_variance: bool) -> None:
        if self.needs_variance and not learned_variance:
            raise ValueError(NEEDS_VARIANCE)

    def noise_split(self, now: NoiseLevel, then: NoiseLevel, variance_fraction: Tensor | None) -> tuple[float, float | Tensor]:
        """(c, τ): the noise level taken from ε̂, and the one added as fresh noise."""
        raise NotImplementedError


def step_variance(now: NoiseLevel, then: NoiseLevel) -> float:
    """β = σ_t² − (a_t/a_s)² σ_s²: Var[x_t | x_s], the β_t of the grid walked (Kingma et al. 2021, Eq. 22)."""
    return now.sigma**2 - (now.alpha / then.alpha * then.sigma) ** 2


def posterior_variance(now: NoiseLevel, then: NoiseLevel) -> float:
    """β̃ = β σ_s²/σ_t²: Var[x_s | x_t, x0] (Ho et al. 2020, Eq. 7)."""
    return step_variance(now, then) * (then.sigma / now.sigma) ** 2


class FixedSmall(Transition):
    """DDPM with τ² = β̃ (Ho et al. 2020, Sec. 3.2, the second choice)."""

    def noise_split(self, now: NoiseLevel, then: NoiseLevel, variance_fraction: Tensor | None) -> tuple[float, float | Tensor]:
        std = sqrt(posterior_variance(now, then))
        return std, std


class FixedLarge(Transition):
    """DDPM with τ² = β (Ho et al. 2020, Sec. 3.2, the first choice)."""

    def noise_split(self, now: NoiseLevel, then: NoiseLevel, variance_fraction: Tensor | None) -> tuple[float, float | Tensor]:
        return sqrt(posterior_variance(now, then)), sqrt(step_variance(now, then))


class LearnedRange(Transition):
    """DDPM with log τ² = f log β + (1 − f) log β̃, f the network's (Nichol & Dhariwal 2021, Eq. 15).

    Raises ValueError where the network has no variance channels.
    """

    needs_variance = True

    def noise_split(self, now: NoiseLevel, then: NoiseLevel, variance_fraction: Tensor | None) -> tuple[float, float | Tensor]:
        if variance_fraction is None:
            raise ValueError(NEEDS_VARIANCE)
        small, large = posterior_variance(now, then), step_variance(now, then)
        return sqrt(small), sqrt(small) * (large / small) ** (0.5 * variance_fraction)


class DDIM(Transition):
    """c = τ = η √β̃: deterministic at η = 0, the DDPM posterior at η = 1 (Song et al. 2021, Eq. 12 and 16).

    Raises ValueError where η lies outside [0, 1].
    """

    def __init__(self, eta: float = 0.0) -> None:
        if not 0.0 <= eta <= 1.0:
            raise ValueError(f"eta must lie in [0, 1], got {eta}; set sampler.eta")
        self.eta = eta

    def noise_split(self, now: NoiseLevel, then: NoiseLevel, variance_fraction: Tensor | None) -> tuple[float, float | Tensor]:
        std = self.eta * sqrt(posterior_variance(now, then))
        return std, std


def stochastic_ddim(eta: float = 0.85) -> DDIM:
    """DDIM with the η of DDNM and DDS. Raises ValueError where it lies outside [0, 1]."""
    return DDIM(eta)


class Renoise(Transition):
    """c = τ = √ζ σ_s: x_s = a_s x̂0 + σ_s (√(1 − ζ) ε̂ + √ζ z) (Zhu et al. 2023, DiffPIR, Alg. 1).

    Raises ValueError where ζ lies outside [0, 1].
    """

    def __init__(self, zeta: float = 0.3) -> None:
        if not 0.0 <= zeta <= 1.0:
            raise ValueError(f"zeta must lie in [0, 1], got {zeta}; set sampler.zeta")
        self.zeta = zeta

    def noise_split(self, now: NoiseLevel, then: NoiseLevel, variance_fraction: Tensor | None) -> tuple[float, float | Tensor]:
        std = sqrt(self.zeta) * then.sigma
        return std, std
