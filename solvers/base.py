"""The loop every solver shares. A method is one class with a `step`, and `init` or `levels` where it starts elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.grids import Grid
from diffusion_priors.diffusion.image_random import ImageRandom
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.transitions import Transition
from diffusion_priors.operators.base import Operator


@dataclass(frozen=True)
class Problem:
    """Everything a step may look at. `y` (B, C', H', W') is measured with standard deviation `sigma_y` (B, 1, 1, 1).

    `blank` (B, C, H, W) has the shape, type and place of x0; all in [-1, 1] units.
    """

    denoiser: Denoiser
    transition: Transition
    operator: Operator
    y: Tensor
    sigma_y: Tensor
    blank: Tensor
    rng: ImageRandom

    def residual(self, x0: Tensor) -> Tensor:
        """y − A x0."""
        return self.y - self.operator(x0)

    def guidance(self, x: Tensor, level: NoiseLevel) -> tuple[Tensor, Tensor | None, Tensor]:
        """x̂0, the variance fraction and ∇_{x_t} ‖y − A x̂0(x_t)‖₂ per image: one forward and one backward pass."""
        x = x.detach().requires_grad_()
        x0, fraction = self.denoiser(x, level)
        norm = torch.linalg.vector_norm(self.residual(x0), dim=(1, 2, 3))
        (gradient,) = torch.autograd.grad(norm.sum(), x)
        return x0.detach(), fraction, gradient

    def misfit(self, x0: Tensor) -> Tensor:
        """Root mean square of y − A x0 over the measured entries, (B,), in [-1, 1] units: σ_y where the fit is right."""
        entries = self.operator.support(self.y).expand_as(self.y).flatten(1).sum(1)
        return self.residual(x0).flatten(1).square().sum(1).div(entries).sqrt()


@dataclass(frozen=True)
class Progress:
    """What an observer sees after step `index` of `total`: the level left, x there and x̂0 before it."""

    index: int
    total: int
    level: NoiseLevel
    x: Tensor
    x0: Tensor


Observer = Callable[[Progress], bool | None]
"""Called after every step; a true answer ends the run with the x̂0 at hand."""


@dataclass
class Solution:
    """x0 (B, C, H, W); `failed_at[b]` is the step at which image b stopped being finite, or None.

    `forwards` and `vjps` are the network evaluations spent on the batch, the same for each image.
    """

    x0: Tensor
    failed_at: list[int | None]
    levels: list[NoiseLevel]
    forwards: int
    vjps: int
    trajectory: list[Tensor] = field(default_factory=list)


class Solver:
    """Walks a list of levels, one `step` each, from `init`.

    `needs_gradient` says whether `step` differentiates through the network; `uses_measurement` is False for a
    method that ignores y; `starts_from_image` is True where `init` noises y instead of drawing noise alone. An image
    that is no longer finite is frozen at its last finite state; the others go on.
    """

    needs_gradient = False
    uses_measurement = True
    starts_from_image = False
    check_every = 32

    def levels(self, grid: Grid, table: Sequence[NoiseLevel]) -> list[NoiseLevel]:
        """The levels to walk, from the schedule's `table`. Raises ValueError where they lie outside it."""
        return grid(table)

    def init(self, problem: Problem, start: NoiseLevel) -> Tensor:
        """x_T = σ_T z."""
        return start.sigma * problem.rng.normal(problem.blank)

    def step(self, x: Tensor, now: NoiseLevel, then: NoiseLevel, problem: Problem) -> tuple[Tensor, Tensor]:
        """x at `now` → (x at `then`, the x̂0 seen on the way)."""
        raise NotImplementedError

    def solve(self, problem: Problem, levels: list[NoiseLevel], observe: Observer | None = None, remember: bool = False) -> Solution:
        """Run the method. With `remember` the states are kept, a tensor per level, the first one included."""
        problem.denoiser.reset()
        with torch.inference_mode(False), torch.set_grad_enabled(self.needs_gradient):
            x = self.init(problem, levels[0])
            alive = torch.ones(x.shape[0], dtype=torch.bool, device=x.device)
            steps_lived = torch.zeros(x.shape[0], dtype=torch.long, device=x.device)
            trajectory = [x] if remember else []
            for index, (now, then) in enumerate(pairwise(levels)):
                moved, x0 = self.step(x, now, then, problem)
                alive = alive & moved.isfinite().flatten(1).all(1)
                steps_lived += alive
                x = torch.where(alive.view(-1, 1, 1, 1), moved, x)
                if remember:
                    trajectory.append(x)
                if observe is not None and observe(Progress(index, len(levels) - 1, then, x, x0)):
                    x = torch.where(alive.view(-1, 1, 1, 1), x0, x)
                    break
                if index % self.check_every == self.check_every - 1 and not alive.any():
                    break
        failed_at = [None if ok else lived for ok, lived in zip(alive.tolist(), steps_lived.tolist(), strict=True)]
        return Solution(x, failed_at, levels, problem.denoiser.forwards, problem.denoiser.vjps, trajectory)


def level_at(table: Sequence[NoiseLevel], t: int, name: str) -> NoiseLevel:
    """The level after t of the T noising steps, t = 1 … T as the papers count (index t − 1).

    Raises ValueError where t lies outside the schedule.
    """
    if not 1 <= t <= len(table):
        raise ValueError(f"{name}={t} lies outside the prior's schedule; set it between 1 and {len(table)}")
    return table[t - 1]
