"""Schedules: the noise levels a network was trained at, discrete or continuous."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from math import cos, inf, log, pi, sqrt
from operator import mul
from typing import Any

from diffusion_priors.diffusion.levels import NoiseLevel

MOST_STEPS = 100_000
"""Networks are trained on a few thousand levels at most. A table of billions would fill the memory."""


class Schedule:
    """Every level by its time: `level(t)`; and by its noise: `at(σ/α)`.

    `table` lists the levels of a discrete schedule, least noisy first, and is None for a continuous one. Levels are in
    the network's own pixel units; `rescaled` gives them in others. `kind` names the class on a prior's card.
    """

    kind: str
    table: list[NoiseLevel] | None = None

    def level(self, t: float) -> NoiseLevel:
        """The level at time t. Raises ValueError where t lies outside the schedule."""
        raise NotImplementedError

    def at(self, noise_to_signal: float) -> NoiseLevel:
        """The level with σ/α = `noise_to_signal`; the nearest one there is, in log σ/α."""
        raise NotImplementedError

    def after(self, t: float, name: str) -> NoiseLevel:
        """The level after the noising that a user calls `t`: steps 1 … T of a discrete schedule, a time of a continuous one.

        Raises ValueError that says to set `name` where t lies outside the schedule.
        """
        raise NotImplementedError

    def discretised(self, total: int = 1000) -> list[NoiseLevel]:
        """The table; of a continuous schedule `total` levels at equal distances of t, least noisy first."""
        raise NotImplementedError

    def rescaled(self, factor: float) -> Schedule:
        """The same levels with σ divided by `factor`: in units that are `factor` times as large."""
        return self if factor == 1.0 else Rescaled(self, factor)

    def describe(self) -> dict[str, Any]:
        """Its kind and the arguments that build it again, as plain values for a prior's card."""
        raise NotImplementedError


class Betas(Schedule):
    """ᾱ_t = Π_{i≤t} (1 − β_i), α = √ᾱ_t, σ = √(1 − ᾱ_t) (Ho et al. 2020, Eq. 4).

    `betas` are β_0 … β_{T−1} in double precision; `table[t]` is the level the network knows by the 0-based index t.

    Raises ValueError where a beta lies outside (0, 1).
    """

    kind = "betas"
    table: list[NoiseLevel]

    def __init__(self, betas: list[float]) -> None:
        _require_steps(len(betas))
        if not all(0.0 < beta < 1.0 for beta in betas):
            raise ValueError(f"betas must be numbers between 0 and 1 (exclusive), got {len(betas)} of them: {betas[:3]}…")
        self.betas = [float(beta) for beta in betas]  # NumPy's numbers would be code in a checkpoint
        alpha_bars = accumulate((1.0 - beta for beta in betas), mul)
        self.table = [NoiseLevel(t, sqrt(bar), sqrt(1.0 - bar)) for t, bar in enumerate(alpha_bars)]
        self._log_ratios = [log(level.noise_to_signal) for level in self.table]

    def level(self, t: float) -> NoiseLevel:
        if t != int(t) or not 0 <= t < len(self.table):
            raise ValueError(f"t={t} is no index of the schedule; its levels are 0 to {len(self.table) - 1}")
        return self.table[int(t)]

    def at(self, noise_to_signal: float) -> NoiseLevel:
        wanted = log(noise_to_signal) if noise_to_signal > 0.0 else -inf
        above = bisect_left(self._log_ratios, wanted)
        near = [i for i in (above - 1, above) if 0 <= i < len(self.table)]
        return self.table[min(near, key=lambda i: abs(self._log_ratios[i] - wanted) if wanted > -inf else i)]

    def after(self, t: float, name: str) -> NoiseLevel:
        if t != int(t) or not 1 <= t <= len(self.table):
            raise ValueError(f"{name}={t} lies outside the prior's schedule; set it between 1 and {len(self.table)}")
        return self.table[int(t) - 1]

    def discretised(self, total: int = 1000) -> list[NoiseLevel]:
        return self.table

    def describe(self) -> dict[str, Any]:
        return {"kind": "betas", "betas": list(self.betas)}


class Linear(Betas):
    """β_t rises linearly from `beta_start` to `beta_end` in `steps` steps (Ho et al. 2020, Sec. 4).

    The defaults are Ho et al.'s 1e-4 and 2e-2 times 1000/steps, as in guided-diffusion: any number of steps then ends with
    about the same noise. Given values are taken as they are.

    Raises ValueError where a beta lies outside (0, 1), which the defaults do for 20 steps and fewer.
    """

    kind = "linear"

    def __init__(self, steps: int = 1000, beta_start: float | None = None, beta_end: float | None = None) -> None:
        _require_steps(steps)
        self.steps = steps
        self.beta_start = 1e-4 * (1000 / steps) if beta_start is None else beta_start
        self.beta_end = 2e-2 * (1000 / steps) if beta_end is None else beta_end
        if not (0.0 < self.beta_start < 1.0 and 0.0 < self.beta_end < 1.0):
            raise ValueError(
                f"the betas of a linear schedule must lie between 0 and 1 (exclusive), got {self.beta_start:g} to {self.beta_end:g} for "
                f"{steps} steps; set schedule.beta_start and schedule.beta_end (null: 1e-4 and 2e-2 times 1000/steps, for 21 steps or more)"
            )
        width = max(steps - 1, 1)
        super().__init__([self.beta_start + (self.beta_end - self.beta_start) * t / width for t in range(steps)])

    def describe(self) -> dict[str, Any]:
        return {"kind": "linear", "steps": self.steps, "beta_start": self.beta_start, "beta_end": self.beta_end}


class Cosine(Betas):
    """ᾱ_t = f(t)/f(0), f(t) = cos²(π/2 · (t/T + s)/(1 + s)), β ≤ max_beta (Nichol & Dhariwal 2021, Eq. 17)."""

    kind = "cosine"

    def __init__(self, steps: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> None:
        _require_steps(steps)
        if not 0.0 <= s <= 1.0 or not 0.0 < max_beta < 1.0:
            raise ValueError(f"a cosine schedule needs 0 <= s <= 1 and 0 < max_beta < 1, got s={s}, max_beta={max_beta}; set schedule.s")
        self.steps, self.s, self.max_beta = steps, s, max_beta

        def f(t: int) -> float:
            return cos((t / steps + s) / (1.0 + s) * pi / 2) ** 2

        super().__init__([min(1.0 - f(t + 1) / f(t), max_beta) for t in range(steps)])

    def describe(self) -> dict[str, Any]:
        return {"kind": "cosine", "steps": self.steps, "s": self.s, "max_beta": self.max_beta}


class Continuous(Schedule):
    """Levels at any time from `t_min` to `t_max`."""

    t_min: float
    t_max: float

    def after(self, t: float, name: str) -> NoiseLevel:
        if not self.t_min <= t <= self.t_max:
            raise ValueError(f"{name}={t} lies outside the prior's schedule; set it between {self.t_min:g} and {self.t_max:g}")
        return self.level(t)

    def discretised(self, total: int = 1000) -> list[NoiseLevel]:
        width = max(total - 1, 1)
        return [self.level(self.t_min + (self.t_max - self.t_min) * i / width) for i in range(total)]

    def _inside(self, t: float) -> float:
        """t, up to the rounding of a single-precision t at the ends."""
        if not self.t_min * (1.0 - 1e-6) <= t <= self.t_max * (1.0 + 1e-6):
            raise ValueError(f"t={t:g} lies outside the schedule, which runs from {self.t_min:g} to {self.t_max:g}")
        return min(max(float(t), self.t_min), self.t_max)


class VE(Continuous):
    """α = 1, σ = t: variance exploding (Song et al. 2021b, Eq. 9), in the time of EDM (Karras et al. 2022, Table 1).

    Raises ValueError unless 0 < sigma_min < sigma_max.
    """

    kind = "ve"

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0) -> None:
        if not 0.0 < sigma_min < sigma_max < inf:
            raise ValueError(
                f"a VE schedule needs 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}; "
                "set schedule.sigma_min and schedule.sigma_max"
            )
        self.t_min, self.t_max = sigma_min, sigma_max

    def level(self, t: float) -> NoiseLevel:
        t = self._inside(t)
        return NoiseLevel(t, 1.0, t)

    def at(self, noise_to_signal: float) -> NoiseLevel:
        return self.level(min(max(noise_to_signal, self.t_min), self.t_max))

    def describe(self) -> dict[str, Any]:
        return {"kind": "ve", "sigma_min": self.t_min, "sigma_max": self.t_max}


class Flow(Continuous):
    """α = 1 − t, σ = t: the straight paths of rectified flow (Liu et al. 2023, Eq. 1; Lipman et al. 2023, Sec. 4.1).

    At t = 1 no signal is left. Methods that change the score cannot start there: set `t_max` below 1 for them.

    Raises ValueError unless 0 < t_min < t_max ≤ 1.
    """

    kind = "flow"

    def __init__(self, t_min: float = 0.001, t_max: float = 1.0) -> None:
        if not 0.0 < t_min < t_max <= 1.0:
            raise ValueError(f"a flow schedule needs 0 < t_min < t_max ≤ 1, got {t_min} and {t_max}; set schedule.t_min, schedule.t_max")
        self.t_min, self.t_max = t_min, t_max

    def level(self, t: float) -> NoiseLevel:
        t = self._inside(t)
        return NoiseLevel(t, 1.0 - t, t)

    def at(self, noise_to_signal: float) -> NoiseLevel:
        t = 1.0 if noise_to_signal == inf else noise_to_signal / (1.0 + noise_to_signal)
        return self.level(min(max(t, self.t_min), self.t_max))

    def describe(self) -> dict[str, Any]:
        return {"kind": "flow", "t_min": self.t_min, "t_max": self.t_max}


class Rescaled(Schedule):
    """`schedule` in pixel units that are `factor` times as large: σ/factor, α and t unchanged."""

    def __init__(self, schedule: Schedule, factor: float) -> None:
        self.schedule, self.factor = schedule, factor
        self.kind = schedule.kind
        self.table = None if schedule.table is None else [self._scaled(level) for level in schedule.table]

    def _scaled(self, level: NoiseLevel) -> NoiseLevel:
        return NoiseLevel(level.t, level.alpha, level.sigma / self.factor)

    def level(self, t: float) -> NoiseLevel:
        return self._scaled(self.schedule.level(t))

    def at(self, noise_to_signal: float) -> NoiseLevel:
        return self._scaled(self.schedule.at(noise_to_signal * self.factor))

    def after(self, t: float, name: str) -> NoiseLevel:
        return self._scaled(self.schedule.after(t, name))

    def discretised(self, total: int = 1000) -> list[NoiseLevel]:
        return [self._scaled(level) for level in self.schedule.discretised(total)]

    def describe(self) -> dict[str, Any]:
        return self.schedule.describe()


def _require_steps(steps: int) -> None:
    if not 1 <= steps <= MOST_STEPS:
        raise ValueError(f"a schedule has 1 to {MOST_STEPS} steps, got steps={steps}; set schedule.steps")
