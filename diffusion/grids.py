"""Grids: the finite list of levels a run walks. Respacing happens here and nowhere else."""

from __future__ import annotations

from itertools import accumulate
from math import inf

from diffusion_priors.diffusion.levels import CLEAN, NoiseLevel
from diffusion_priors.diffusion.schedules import MOST_STEPS, Schedule


class Grid:
    """A schedule → `steps` of its levels from the noisiest down, then the noise-free end.

    Raises ValueError where `steps` is below 1 or above what a schedule may have.
    """

    def __init__(self, steps: int = 1000) -> None:
        if not 1 <= steps <= MOST_STEPS:
            raise ValueError(f"a sampling grid has 1 to {MOST_STEPS} steps, got steps={steps}; set grid.steps")
        self.steps = steps

    def __call__(self, schedule: Schedule) -> list[NoiseLevel]:
        raise NotImplementedError


class IndexGrid(Grid):
    """A grid that picks indices of the schedule's T levels; a continuous schedule counts as 1000 levels at equal distances of t.

    Raises ValueError where `steps` is above T, once T is known.
    """

    def __call__(self, schedule: Schedule) -> list[NoiseLevel]:
        levels = schedule.discretised()
        if self.steps > len(levels):
            raise ValueError(
                f"steps={self.steps} is more than the {len(levels)} levels of the prior's schedule; set grid.steps={len(levels)} or fewer"
            )
        kept = sorted(set(self.indices(len(levels))), reverse=True)
        return [levels[i] for i in kept] + [CLEAN]

    def indices(self, total: int) -> list[int]:
        raise NotImplementedError


class Linspace(IndexGrid):
    """t_i = round(i (T−1)/(n−1)): both ends kept, as guided-diffusion respaces (Nichol & Dhariwal 2021, Sec. 4).

    The strides are summed one by one, as in its code: where t_i lies half-way between two indices, their rounding decides.
    A single step is the noisiest level here, the least noisy one there.
    """

    def indices(self, total: int) -> list[int]:
        if self.steps == 1:
            return [total - 1]
        stride = (total - 1) / (self.steps - 1)
        return [round(t) for t in accumulate([stride] * (self.steps - 1), initial=0.0)]


class Trailing(IndexGrid):
    """t_i = round(i T/n) − 1: the noisiest level kept (Lin et al. 2024, Table 2)."""

    def indices(self, total: int) -> list[int]:
        return [round(i * total / self.steps) - 1 for i in range(1, self.steps + 1)]


class Leading(IndexGrid):
    """t_i = i ⌊T/n⌋: the spacing of the DDIM paper's code (Song et al. 2021, App. D.3); starts below T."""

    def indices(self, total: int) -> list[int]:
        stride = total // self.steps
        return [i * stride for i in range(self.steps)]


class Quadratic(IndexGrid):
    """t_i = (T−1) (i/(n−1))²: denser where noise is low (Song et al. 2021, App. D.3).

    Small t collide when n is large; each level is walked once, so a run may take fewer than n steps.
    """

    def indices(self, total: int) -> list[int]:
        if self.steps == 1:
            return [total - 1]
        return [round((total - 1) * (i / (self.steps - 1)) ** 2) for i in range(self.steps)]


class RatioGrid(Grid):
    """A grid that chooses values of u = σ/α from `largest` to `smallest`; the ends are the schedule's own unless these say otherwise.

    On a discrete schedule each value becomes the nearest level; each level is walked once, so a run may take fewer than
    n steps.

    Raises ValueError for ends in the wrong order, and where `largest` is not set and the noisiest level has no signal.
    """

    def __init__(self, steps: int = 1000, largest: float | None = None, smallest: float | None = None) -> None:
        super().__init__(steps)
        for name, value in (("largest", largest), ("smallest", smallest)):
            if value is not None and not 0.0 < value < inf:
                raise ValueError(f"sigma/alpha of the grid's ends must be positive, got {name}={value}; set grid.{name}")
        self.largest, self.smallest = largest, smallest

    def __call__(self, schedule: Schedule) -> list[NoiseLevel]:
        least, *_, most = schedule.discretised()
        largest = self.largest or most.noise_to_signal
        smallest = self.smallest or least.noise_to_signal
        if largest == inf:
            raise ValueError("the schedule's noisiest level has no signal, so sigma/alpha is infinite there; set grid.largest=1000")
        if not largest > smallest:
            raise ValueError(f"the grid's ends are in the wrong order: largest={largest:g}, smallest={self.smallest}; set grid.largest")
        width = max(self.steps - 1, 1)
        wanted = [self.ratio(largest, smallest, i / width) for i in range(self.steps)]
        return [*dict.fromkeys(schedule.at(ratio) for ratio in wanted), CLEAN]

    def ratio(self, largest: float, smallest: float, fraction: float) -> float:
        """u at `fraction` of the walk, 0 at the largest and 1 at the smallest."""
        raise NotImplementedError


class Karras(RatioGrid):
    """u_i = (u_max^{1/ρ} + i/(n−1) (u_min^{1/ρ} − u_max^{1/ρ}))^ρ for u = σ/α (Karras et al. 2022, Eq. 5).

    Raises ValueError for ρ ≤ 0.
    """

    def __init__(self, steps: int = 1000, rho: float = 7.0, largest: float | None = None, smallest: float | None = None) -> None:
        super().__init__(steps, largest, smallest)
        if not 0.1 <= rho <= 1000.0:
            raise ValueError(f"Karras' grid needs a positive rho, from 0.1 to 1000, got {rho}; set grid.rho")
        self.rho = rho

    def ratio(self, largest: float, smallest: float, fraction: float) -> float:
        high, low = (value ** (1.0 / self.rho) for value in (largest, smallest))
        return (high + fraction * (low - high)) ** self.rho


class LogSNR(RatioGrid):
    """log u_i = log u_max + i/(n−1) (log u_min − log u_max), u = σ/α: equal steps of the log signal-to-noise ratio −2 log u.

    The grid with which DPM-Solver samples small images (Lu et al. 2022). It is the limit of Karras' as ρ → ∞.
    """

    def ratio(self, largest: float, smallest: float, fraction: float) -> float:
        return largest ** (1.0 - fraction) * smallest**fraction
