"""Schedules: the noise levels a network was trained at."""

from __future__ import annotations

from itertools import accumulate
from math import cos, pi, sqrt
from operator import mul

from diffusion_priors.diffusion.levels import NoiseLevel


class Schedule:
    """ᾱ_t = Π_{i≤t} (1 − β_i), α = √ᾱ_t, σ = √(1 − ᾱ_t) (Ho et al. 2020, Eq. 4).

    `betas` are β_0 … β_{T−1} in double precision; `levels[t]` is the level the network knows
    by the 0-based index t. Levels are in the network's own pixel units.

    Raises ValueError where a beta lies outside (0, 1).
    """

    def __init__(self, betas: list[float]) -> None:
        if not betas or not all(0.0 < beta < 1.0 for beta in betas):
            raise ValueError(f"betas must be numbers between 0 and 1 (exclusive), got {len(betas)} of them: {betas[:3]}…")
        self.betas = [float(beta) for beta in betas]  # NumPy's numbers would be code in a checkpoint
        alpha_bars = accumulate((1.0 - beta for beta in betas), mul)
        self.levels = [NoiseLevel(t, sqrt(bar), sqrt(1.0 - bar)) for t, bar in enumerate(alpha_bars)]

    def describe(self) -> dict:
        """Its kind and the arguments that build it again, plain values for a prior's card."""
        return {"kind": "betas", "betas": list(self.betas)}


class Linear(Schedule):
    """β_t rises linearly from `beta_start` to `beta_end` in `steps` steps (Ho et al. 2020, Sec. 4)."""

    def __init__(self, steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 2e-2) -> None:
        _require_steps(steps)
        self.steps, self.beta_start, self.beta_end = steps, beta_start, beta_end
        width = max(steps - 1, 1)
        super().__init__([beta_start + (beta_end - beta_start) * t / width for t in range(steps)])

    def describe(self):
        return {"kind": "linear", "steps": self.steps, "beta_start": self.beta_start, "beta_end": self.beta_end}


class Cosine(Schedule):
    """ᾱ_t = f(t)/f(0), f(t) = cos²(π/2 · (t/T + s)/(1 + s)), β ≤ max_beta (Nichol & Dhariwal 2021, Eq. 17)."""

    def __init__(self, steps: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> None:
        _require_steps(steps)
        self.steps, self.s, self.max_beta = steps, s, max_beta

        def f(t: int) -> float:
            return cos((t / steps + s) / (1.0 + s) * pi / 2) ** 2

        super().__init__([min(1.0 - f(t + 1) / f(t), max_beta) for t in range(steps)])

    def describe(self):
        return {"kind": "cosine", "steps": self.steps, "s": self.s, "max_beta": self.max_beta}


def _require_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"a schedule needs at least one step, got steps={steps}")
