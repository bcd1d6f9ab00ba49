"""x̂0 over the steps of a solver, for films."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_priors.solvers.base import Progress


def kept_steps(total: int, frames: bool | int) -> list[int]:
    """The indices of at most `frames` of `total` steps, at equal distances: the first and the last among them; the last alone for one.

    True are all steps, False none.
    """
    if frames is True or frames >= total:
        return list(range(total))
    if frames == 1:
        return [total - 1]
    return [round(i * (total - 1) / (frames - 1)) for i in range(frames)]


class Trajectory:
    """The x̂0 (B, C, H, W) of at most `frames` steps of one walk of `total` steps. They are kept in the memory of the CPU."""

    def __init__(self, total: int, frames: bool | int) -> None:
        self.steps = kept_steps(total, frames)
        self.images: list[Tensor] = []

    def add(self, progress: Progress) -> None:
        if len(self.images) < len(self.steps) and progress.index == self.steps[len(self.images)]:
            self.images.append(progress.x0.detach().cpu().clone())

    def stacked(self) -> Tensor:
        """(B, frames, C, H, W). A walk that ended early, because nothing in it was finite any more, repeats its last x̂0."""
        return torch.stack(self.images + self.images[-1:] * (len(self.steps) - len(self.images)), dim=1)
