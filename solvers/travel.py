"""Time travel: a walk that goes back to noisier levels and takes the steps again (Lugmayr et al. 2022)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from diffusion_priors.solvers.base import Step


class Travelled(NamedTuple):
    """x (B, C, H, W), and the x̂0 seen last."""

    x: Tensor
    x0: Tensor


def with_travels(steps: list[Step], length: int, repeats: int) -> list[Step]:
    """Every `length` steps are taken `repeats` times: one step goes back to where they began, and they follow again.

    The last steps are, too, although they end without noise; in the official codes of RePaint and DDNM the walk ends there.
    """
    blocks = [steps[i : i + length] for i in range(0, len(steps), length)]
    return [step for block in blocks for step in _repeated(block, repeats)]


def check_travels(length: int, repeats: int) -> None:
    """Raises ValueError where a count of `travel_length` and `travel_repeats` is below 1."""
    for name, value in (("travel_length", length), ("travel_repeats", repeats)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}; set solver.{name}")


def goes_back(step: Step) -> bool:
    """Whether a step of such a walk leads to a noisier level."""
    return step.then.noise_to_signal > step.now.noise_to_signal


def _repeated(block: list[Step], repeats: int) -> list[Step]:
    back = Step(block[-1].then, block[0].now)
    return [*block, *([back, *block] * (repeats - 1))]
