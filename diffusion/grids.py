"""Grids: the finite list of levels a run walks. Respacing happens here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

from diffusion_priors.diffusion.levels import CLEAN, NoiseLevel


class Grid:
    """`steps` of the schedule's T levels, from the noisiest down, then the noise-free end.

    Raises ValueError where `steps` is below 1, or above T once T is known.
    """

    def __init__(self, steps: int = 1000) -> None:
        if steps < 1:
            raise ValueError(f"a sampling grid needs at least one step, got steps={steps}; set grid.steps to 1 or more")
        self.steps = steps

    def __call__(self, levels: Sequence[NoiseLevel]) -> list[NoiseLevel]:
        if self.steps > len(levels):
            raise ValueError(
                f"steps={self.steps} is more than the {len(levels)} levels of the prior's schedule; set grid.steps={len(levels)} or fewer"
            )
        kept = sorted(set(self.indices(len(levels))), reverse=True)
        return [levels[i] for i in kept] + [CLEAN]

    def indices(self, total: int) -> list[int]:
        raise NotImplementedError


class Linspace(Grid):
    """t_i = round(i (T−1)/(n−1)): both ends kept, as guided-diffusion respaces (Nichol & Dhariwal 2021, Sec. 4)."""

    def indices(self, total: int) -> list[int]:
        if self.steps == 1:
            return [total - 1]
        return [round(i * (total - 1) / (self.steps - 1)) for i in range(self.steps)]


class Trailing(Grid):
    """t_i = round(i T/n) − 1: the noisiest level kept (Lin et al. 2024, Table 2)."""

    def indices(self, total: int) -> list[int]:
        return [round(i * total / self.steps) - 1 for i in range(1, self.steps + 1)]


class Leading(Grid):
    """t_i = i ⌊T/n⌋: the spacing of the DDIM paper's code (Song et al. 2021, App. D.3); starts below T."""

    def indices(self, total: int) -> list[int]:
        stride = total // self.steps
        return [i * stride for i in range(self.steps)]


class Quadratic(Grid):
    """t_i = (T−1) (i/(n−1))²: denser where noise is low (Song et al. 2021, App. D.3).

    Small t collide when n is large; each level is walked once, so a run may take fewer than n steps.
    """

    def indices(self, total: int) -> list[int]:
        if self.steps == 1:
            return [total - 1]
        return [round((total - 1) * (i / (self.steps - 1)) ** 2) for i in range(self.steps)]
