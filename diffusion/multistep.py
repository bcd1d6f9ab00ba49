"""Multistep samplers: second order from the x̂0 of the steps before, at one network call a step."""

from __future__ import annotations

from math import expm1, log
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion_priors.diffusion.denoiser import Denoised
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.samplers import Estimate, Euler, Random, Sampler
from diffusion_priors.diffusion.transitions import FixedSmall


class LastEstimate(NamedTuple):
    """x̂0 (B, C, H, W) of the step before, and its level."""

    x0: Tensor
    level: NoiseLevel


def extrapolated(denoised: Denoised, now: NoiseLevel, then: NoiseLevel, last: LastEstimate | None) -> Denoised:
    """D = x̂0 + h/(2 h') (x̂0 − x̂0'), h = λ_s − λ_t, h' = λ_t − λ_t', λ = log(α/σ): x̂0 half a step ahead in λ.

    x̂0 itself where nothing came before, on the way to the noise-free end, and after a level without signal, where h' is infinite.
    An ε̂ that the estimate brings moves against D, so that α_t D + σ_t ε̂ stays as it is.
    """
    if last is None or then.sigma == 0.0:
        return denoised
    weight = _log_snr_step(now, then) / (2.0 * _log_snr_step(last.level, now))
    change = weight * (denoised.x0 - last.x0)
    eps = None if denoised.eps is None else torch.sub(denoised.eps, change, alpha=now.alpha / now.sigma)
    return denoised._replace(x0=denoised.x0 + change, eps=eps)


class DPMSolver2M(Sampler):
    """D = x̂0 + h/(2 h') (x̂0 − x̂0'), x_s = (σ_s/σ_t) x_t − α_s (e^{−h} − 1) D (Lu et al. 2022, DPM-Solver++, Alg. 2).

    h = λ_s − λ_t and h' = λ_t − λ_t', λ = log(α/σ); primes mark the step before. With D for x̂0 it is Euler's
    step. The first step, the last one, and the one after a level without signal are of first order.
    """

    move: Sampler = Euler()

    def step(
        self, denoised: Denoised, estimate: Estimate, x: Tensor, now: NoiseLevel, then: NoiseLevel, rng: Random, memory: Any
    ) -> tuple[Tensor, Any]:
        ahead = extrapolated(denoised, now, then, memory)
        moved, _ = self.move.step(ahead, estimate, x, now, then, rng, None)
        return moved, LastEstimate(denoised.x0, now)


class DPMSolver2MSDE(DPMSolver2M):
    """x_s = (σ_s/σ_t) e^{−h} x_t + α_s (1 − e^{−2h}) D + σ_s √(1 − e^{−2h}) z, D of DPMSolver2M (Lu et al. 2022, SDE-DPM-Solver++(2M)).

    With D for x̂0 it is the step of DDPM with the small variance. The law of its samples has a smaller error than that of
    DDPM in as many steps.
    """

    move = FixedSmall()


class LastTwo(NamedTuple):
    """The estimate of the step before, and the one before that where the step used both."""

    last: LastEstimate
    earlier: LastEstimate | None


class UniPC(Sampler):
    """x_t ← x_t − α_t B (c₁ (x̂0″ − x̂0′)/r + c₂ (x̂0 − x̂0′) − (x̂0″ − x̂0′)/(2 r)), then DPMSolver2M's step (Zhao et al. 2023, UniPC-2, B₂).

    Primes mark the step before, which led to x_t: h and h′ are its length in λ = log(α/σ) and that of the step before it,
    B = e^{−h} − 1, r = −h′/h. c₁ + c₂ = b₁ and r c₁ + c₂ = b₂, φ = −B/h − 1, b₁ = φ/B, b₂ = 2 (−φ/h − ½)/B. After a step
    of first order c₂ = ½ and the terms with x̂0″ are left out.

    The bracket is the difference of corrector and predictor. It is made from the estimate at the predicted x_t, which the
    next step needs anyway, so that a step is one call. It is added when that estimate is known: a shift that a solver
    made in between stays. The last step returns the x̂0 before it. Orders of steps are lower where those of DPMSolver2M are.
    """

    def step(
        self, denoised: Denoised, estimate: Estimate, x: Tensor, now: NoiseLevel, then: NoiseLevel, rng: Random, memory: Any
    ) -> tuple[Tensor, Any]:
        last = None
        if memory is not None:
            correction = self.correction(denoised.x0, now, memory)
            eps = None if denoised.eps is None else torch.add(denoised.eps, correction, alpha=1.0 / now.sigma)
            x, denoised = x + correction, denoised._replace(eps=eps)
            last = memory.last
        moved, _ = Euler().step(extrapolated(denoised, now, then, last), estimate, x, now, then, rng, None)
        return moved, LastTwo(LastEstimate(denoised.x0, now), last)

    @staticmethod
    def correction(x0: Tensor, now: NoiseLevel, memory: LastTwo) -> Tensor:
        """x_t of the corrector less that of the predictor, given x̂0 at the predicted x_t."""
        (before, start), earlier = memory
        scale = now.alpha - start.alpha * now.sigma / start.sigma  # −α_t B
        if earlier is None:
            return scale / 2.0 * (x0 - before)
        h = _log_snr_step(start, now)
        r = -_log_snr_step(earlier.level, start) / h
        b, phi = expm1(-h), -expm1(-h) / h - 1.0
        first, second = phi / b, 2.0 * (-phi / h - 0.5) / b
        c1 = (first - second) / (1.0 - r)
        return scale * ((c1 - 0.5) / r * (earlier.x0 - before) + (first - c1) * (x0 - before))


def _log_snr_step(now: NoiseLevel, then: NoiseLevel) -> float:
    """λ_s − λ_t > 0, infinite from a level without signal."""
    return log(now.noise_to_signal / then.noise_to_signal)
