"""Samplers: how a denoiser's estimates become a walk from one level to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from diffusion_priors.diffusion.denoiser import Denoised
from diffusion_priors.diffusion.levels import NoiseLevel

Estimate = Callable[[Tensor, NoiseLevel], Denoised]
"""(x, level) → x̂0: the denoiser, or the denoiser corrected by a solver."""


class Random(Protocol):
    """Whatever draws z ~ N(0, I) shaped like its argument."""

    def normal(self, like: Tensor) -> Tensor: ...


class Sampler:
    """x_t and x̂0 at one level → x at the next.

    `memory` is what a multistep method keeps of earlier levels: None, or a named tuple whose tensors have one row per image.
    """

    def start(self) -> Any:
        """The memory before the first step."""
        return None

    def step(
        self, denoised: Denoised, estimate: Estimate, x: Tensor, now: NoiseLevel, then: NoiseLevel, rng: Random, memory: Any
    ) -> tuple[Tensor, Any]:
        """Move `x` (B, C, H, W) from `now` to `then`. `denoised` is the estimate at x.

        `estimate` gives further ones, a network call each.
        """
        raise NotImplementedError

    def check(self, learned_variance: bool) -> None:
        """Raises ValueError where a network with (or without) learned variance does not fit."""


def deterministic(x: Tensor, denoised: Denoised, now: NoiseLevel, then: NoiseLevel) -> Tensor:
    """x_s = α_s x̂0 + σ_s ε̂: DDIM at η = 0, which is Euler's step in x/α over σ/α (Song et al. 2021, Eq. 13–14)."""
    if denoised.eps is not None:
        return then.alpha * denoised.x0 + then.sigma * denoised.eps
    keep = then.sigma / now.sigma
    return torch.add((then.alpha - keep * now.alpha) * denoised.x0, x, alpha=keep)


class Euler(Sampler):
    """x_s/α_s = x_t/α_t + (u_s − u_t) ε̂, u = σ/α: Euler's step of the probability flow (Song et al. 2021, Eq. 14). It is DDIM at η = 0."""

    def step(
        self, denoised: Denoised, estimate: Estimate, x: Tensor, now: NoiseLevel, then: NoiseLevel, rng: Random, memory: Any
    ) -> tuple[Tensor, Any]:
        return deterministic(x, denoised, now, then), memory


class Heun(Sampler):
    """x_s/α_s = x_t/α_t + (u_s − u_t) (ε̂_t + ε̂_s)/2, u = σ/α, ε̂_s at Euler's x_s (Karras et al. 2022, Alg. 1).

    Two estimates a step, one in the last, which ends with x̂0; a step from a level without signal is Euler's. It is written as
    Euler's step, which may keep an ε̂ that does not follow x̂0, and what the mean of both ε̂ changes in it.
    """

    def step(
        self, denoised: Denoised, estimate: Estimate, x: Tensor, now: NoiseLevel, then: NoiseLevel, rng: Random, memory: Any
    ) -> tuple[Tensor, Any]:
        euler = deterministic(x, denoised, now, then)
        if then.sigma == 0.0 or now.alpha == 0.0:
            return euler, memory
        change = _eps(estimate(euler, then), euler, then) - _eps(denoised, x, now)
        return torch.add(euler, change, alpha=(then.sigma - then.alpha / now.alpha * now.sigma) / 2.0), memory


def _eps(denoised: Denoised, x: Tensor, level: NoiseLevel) -> Tensor:
    return level.eps(x, denoised.x0) if denoised.eps is None else denoised.eps
