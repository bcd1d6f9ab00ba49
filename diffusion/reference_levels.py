"""How far a move goes, counted in the levels of one schedule, so that step sizes mean the same on every schedule and grid."""

from __future__ import annotations

from bisect import bisect_left
from functools import cache
from math import hypot, log

from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.schedules import Linear


@cache
def _ratios() -> list[float]:
    """σ/α of the linear schedule of a thousand steps (Ho et al. 2020, Sec. 4), least noisy first."""
    return [level.noise_to_signal for level in Linear().table]


def reference_index(level: NoiseLevel) -> float:
    """k(σ/α): the index that a level has in the linear schedule of a thousand steps, and −1 for the noise-free end.

    Between two levels of that schedule log σ/α is linear in k; below the first one σ/α is. Beyond the last one k is 999.
    """
    ratios, ratio = _ratios(), level.noise_to_signal
    above = bisect_left(ratios, ratio)
    if above == len(ratios):
        return float(above - 1)
    if above == 0:
        return ratio / ratios[0] - 1.0
    below = ratios[above - 1]
    return above - 1 + log(ratio / below) / log(ratios[above] / below)


def levels_crossed(now: NoiseLevel, then: NoiseLevel) -> float:
    """k(now) − k(then): 1 from each level of the linear schedule of a thousand steps to the next."""
    return reference_index(now) - reference_index(then)


def state_scale(level: NoiseLevel) -> float:
    """√(α² + σ²): the factor between x_t and the state x_t/√(α² + σ²) with α² + σ² = 1 (1 for a DDPM, √(1 + σ²) for VE)."""
    return hypot(level.alpha, level.sigma)
