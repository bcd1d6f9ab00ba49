"""Transitions: x_t and x̂0 at one level → x at the next. DDPM and DDIM are one formula."""

from __future__ import annotations

from math import sqrt
from typing import Protocol

import torch
from torch import Tensor

from diffusion_priors.diffusion.levels import NoiseLevel


class Noise(Protocol):
    """Whatever draws z ~ N(0, I) shaped like its argument."""

    def normal(self, like: Tensor) -> Tensor: ...


class Transition:
    """x_s = a_s x̂0 + √(σ_s² − c²) ε̂ + τ z, ε̂ = (x_t − a_t x̂0)/σ_t (Song et al. 2021, Eq. 12).

    With c = τ = √β̃ this is the DDPM posterior (Ho et al. 2020, Eq. 6–7), with c = τ = 0 it is
    DDIM; the transitions differ in c and τ alone. x̂0 may be clamped or guided: ε̂ follows it.
    Nothing here assumes α² + σ² = 1. No noise is added on the way to a noise-free level.
    """

    needs_variance = False

    def __call__(self, x: Tensor, x0: Tensor, now: NoiseLevel, then: NoiseLevel, noise: Noise, fraction: Tensor | None = None) -> Tensor:
        """Move `x` (B, C, H, W) from `now` to `then`; `fraction` is the network's variance output, if it has one."""
        if then.sigma == 0.0:
            return then.alpha * x0
        c, tau = self.spread(now, then, fraction)
        keep = sqrt(max(then.sigma**2 - c**2, 0.0)) / now.sigma
        mean = torch.add((then.alpha - keep * now.alpha) * x0, x, alpha=keep)
        if isinstance(tau, float):
            return mean if tau == 0.0 else mean.add(noise.normal(x), alpha=tau)
        return mean.addcmul(tau, noise.normal(x))

    def check(self, learned_variance: bool) -> None:
        """Raises ValueError where a network with (or without) learned variance does not do."""
        if self.needs_variance and not learned_variance:
            raise ValueError(
                "transition=learned_range needs a prior with learned variance, and this one has none; use transition=fixed_small"
            )

    def spread(self, now: NoiseLevel, then: NoiseLevel, fraction: Tensor | None) -> tuple[float, float | Tensor]:
        """(c, τ): the noise level taken from ε̂, and the one put back as fresh noise."""
        raise NotImplementedError


def step_variance(now: NoiseLevel, then: NoiseLevel) -> float:
    """β = σ_t² − (a_t/a_s)² σ_s²: Var[x_t | x_s], the β_t of the grid walked (Kingma et al. 2021, Eq. 22)."""
    return now.sigma**2 - (now.alpha / then.alpha * then.sigma) ** 2


def posterior_variance(now: NoiseLevel, then: NoiseLevel) -> float:
    """β̃ = β σ_s²/σ_t²: Var[x_s | x_t, x0] (Ho et al. 2020, Eq. 7)."""
    return step_variance(now, then) * (then.sigma / now.sigma) ** 2


class FixedSmall(Transition):
    """DDPM with τ² = β̃ (Ho et al. 2020, Sec. 3.2, the second choice)."""

    def spread(self, now, then, fraction):
        std = sqrt(posterior_variance(now, then))
        return std, std


class FixedLarge(Transition):
    """DDPM with τ² = β (Ho et al. 2020, Sec. 3.2, the first choice)."""

    def spread(self, now, then, fraction):
        return sqrt(posterior_variance(now, then)), sqrt(step_variance(now, then))


class LearnedRange(Transition):
    """DDPM with log τ² = f log β + (1 − f) log β̃, f the network's (Nichol & Dhariwal 2021, Eq. 15).

    Raises ValueError where the network has no variance channels.
    """

    needs_variance = True

    def spread(self, now, then, fraction):
        self.check(fraction is not None)
        small, large = posterior_variance(now, then), step_variance(now, then)
        return sqrt(small), sqrt(small) * (large / small) ** (0.5 * fraction)


class DDIM(Transition):
    """c = τ = η √β̃: deterministic at η = 0, the DDPM posterior at η = 1 (Song et al. 2021, Eq. 12 and 16).

    Raises ValueError where η lies outside [0, 1].
    """

    def __init__(self, eta: float = 0.0) -> None:
        if not 0.0 <= eta <= 1.0:
            raise ValueError(f"eta must lie in [0, 1], got {eta}; set transition.eta")
        self.eta = eta

    def spread(self, now, then, fraction):
        std = self.eta * sqrt(posterior_variance(now, then))
        return std, std
