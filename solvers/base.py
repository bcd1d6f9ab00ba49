"""The loop that every solver shares. A method is one class with a `step`, or only an `estimate` that any sampler moves on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion_priors.diffusion.denoiser import Denoised, Denoiser
from diffusion_priors.diffusion.grids import Grid
from diffusion_priors.diffusion.image_random import ImageRandom
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.samplers import Sampler
from diffusion_priors.diffusion.schedules import Schedule
from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.measurement import Measurement
from diffusion_priors.operators.noise_models import NoiseModel
from diffusion_priors.operators.requirements import Requirement
from diffusion_priors.solvers.state import all_finite, rows_of

Info = dict[str, Tensor]
"""Numbers (B,) that a step reports, such as the effective sample size. They go to the records and are never fed back."""


@dataclass(frozen=True)
class Problem:
    """Everything a step may look at. `like` (B, C, H, W) has the shape, dtype and device of x0; all in [-1, 1] units.

    `measurement` is None for a solver with `uses_measurement = False`; its type leaves that out, so that the others need no check.
    """

    denoiser: Denoiser
    measurement: Measurement
    sampler: Sampler
    rng: ImageRandom
    like: Tensor


class Step(NamedTuple):
    """One move from `now` to `then`; `inner` are further levels that the method visits on the way."""

    now: NoiseLevel
    then: NoiseLevel
    inner: tuple[NoiseLevel, ...] = ()


@dataclass(frozen=True)
class Progress:
    """What an observer sees after step `index` of `total`: the level reached, x there and x̂0 before it."""

    index: int
    total: int
    level: NoiseLevel
    x: Tensor
    x0: Tensor


Observer = Callable[[Progress], bool | None]
"""Called after every step; a true answer ends the run with the x̂0 of that step."""


@dataclass
class Solution:
    """x0 (B, C, H, W); `failed_at[b]` is the index of the step at which image b stopped being finite, or None.

    `start` is the image that the run started from, (B, C, H, W), or None where that was noise alone. `info` holds the
    mean over the steps of each number (B,) that they reported. `forwards` and `vjps` are the network evaluations spent
    on the batch, the same for each image.
    """

    x0: Tensor
    failed_at: list[int | None]
    plan: list[Step]
    start: Tensor | None
    info: Info
    forwards: int
    vjps: int
    trajectory: list[Tensor] = field(default_factory=list)


class NotApplicable(ValueError):
    """This solver cannot take this operator, noise model or sampler. In a sweep that is no failure."""


class Solver:
    """Walks a plan of levels, one `step` each, from `init`.

    A state is a tensor or a named tuple of tensors with one row per image. An image that is no longer finite is frozen at
    its last finite state; the others continue.

    `requires` lists what the method needs of operator and noise model. `sampler_type` is the kind of sampler it moves
    with, None for a method that moves by itself. `uses_measurement` is False for a method that ignores y;
    `starts_from_image` is True where `init` adds noise to an image instead of drawing noise alone. `needs_signal` is True
    for a method that divides by α, as those that change the score do. `particles` is the number of rows that a network call has per image.
    """

    requires: tuple[Requirement, ...] = ()
    sampler_type: type[Sampler] | None = None
    uses_measurement = True
    starts_from_image = False
    needs_signal = False
    particles = 1
    check_every = 32

    def check(self, operator: Operator, noise_model: NoiseModel, sampler: Sampler) -> None:
        """Raises NotApplicable, in one line, where the method cannot take one of them. Needs no prior and no image."""
        name = type(self).__name__
        for requirement in self.requires if self.uses_measurement else ():
            if not requirement.met(operator, noise_model):
                raise NotApplicable(
                    f"{name} needs {requirement.what}, and {type(operator).__name__} with {type(noise_model).__name__} noise "
                    "does not give it; choose another solver or another operator"
                )
        if self.sampler_type is not None and not isinstance(sampler, self.sampler_type):
            raise NotApplicable(
                f"{name} moves with the density of a {self.sampler_type.__name__}, and {type(sampler).__name__} has none; "
                "use sampler=ddpm or sampler=ddim"
            )

    def plan(self, grid: Grid, schedule: Schedule) -> list[Step]:
        """The steps to take through `schedule`. Raises ValueError where they lie outside it, or start without the signal needed."""
        steps = steps_of(grid(schedule))
        if self.needs_signal and steps[0].now.alpha == 0.0:
            raise ValueError(
                f"{type(self).__name__} needs some signal at every level, and this schedule starts at t={steps[0].now.t:g} with alpha 0; "
                "let the grid start later, as with grid=log_snr grid.largest=1000"
            )
        return steps

    def init(self, problem: Problem, start: NoiseLevel) -> Any:
        """The state at the first level: x_T = σ_T z."""
        return start.sigma * problem.rng.normal(problem.like)

    def step(self, state: Any, step: Step, problem: Problem) -> tuple[Any, Tensor, Info]:
        """The state at `step.now` → (the state at `step.then`, the x̂0 seen on the way, numbers for the records)."""
        raise NotImplementedError

    def image(self, state: Any) -> Tensor:
        """What the state says of x0, (B, C, H, W)."""
        return state

    def solve(self, problem: Problem, plan: list[Step], observe: Observer | None = None, remember: bool = False) -> Solution:
        """Run the method. With `remember` the images are kept, a tensor per level, the first one included."""
        problem.denoiser.reset()
        with torch.inference_mode(False), torch.no_grad():
            state = self.init(problem, plan[0].now)
            x = start = self.image(state)
            alive = torch.ones(len(x), dtype=torch.bool, device=x.device)
            survived = torch.zeros(len(x), dtype=torch.long, device=x.device)
            trajectory = [x] if remember else []
            totals: Info = {}
            for index, step in enumerate(plan):
                moved, x0, info = self.step(state, step, problem)
                alive = alive & all_finite(moved)
                survived = torch.where(alive, index + 1, survived)
                state = rows_of(alive, moved, state)
                x = self.image(state)
                totals = {name: totals.get(name, 0.0) + value for name, value in info.items()}
                if remember:
                    trajectory.append(x)
                if observe is not None and observe(Progress(index, len(plan), step.then, x, x0)):
                    x = rows_of(alive, x0, x)
                    break
                if index % self.check_every == self.check_every - 1 and not alive.any():
                    break
        failed_at = [None if fine else steps for fine, steps in zip(alive.tolist(), survived.tolist(), strict=True)]
        return Solution(
            x0=x,
            failed_at=failed_at,
            plan=plan,
            start=start if self.starts_from_image else None,
            info={name: total / (index + 1) for name, total in totals.items()},
            forwards=self.particles * problem.denoiser.forwards,
            vjps=self.particles * problem.denoiser.vjps,
            trajectory=trajectory,
        )


class Walk(NamedTuple):
    """The state of a method that moves with a sampler: x (B, C, H, W) and the sampler's memory."""

    x: Tensor
    memory: Any = None


class Guided(Solver):
    """A method that only changes the estimate of x0: any sampler moves on what `estimate` returns."""

    sampler_type = Sampler

    def begin(self, problem: Problem, start: NoiseLevel) -> Tensor:
        """x at the first level: x_T = σ_T z."""
        return super().init(problem, start)

    def init(self, problem: Problem, start: NoiseLevel) -> Walk:
        return Walk(self.begin(problem, start), problem.sampler.start())

    def estimate(self, x: Tensor, level: NoiseLevel, problem: Problem) -> Denoised:
        """x̃0, the estimate of x0 given x_t and y: by default the denoiser's, which knows no y."""
        return problem.denoiser(x, level)

    def step(self, state: Walk, step: Step, problem: Problem) -> tuple[Walk, Tensor, Info]:
        denoised = self.estimate(state.x, step.now, problem)
        return self.move(state, step, denoised, problem), denoised.image, {}

    def move(self, state: Walk, step: Step, denoised: Denoised, problem: Problem) -> Walk:
        """The sampler's move on the estimate `denoised` at `step.now`."""

        def estimate(x: Tensor, level: NoiseLevel) -> Denoised:
            return self.estimate(x, level, problem)

        return Walk(*problem.sampler.step(denoised, estimate, state.x, step.now, step.then, problem.rng, state.memory))

    def image(self, state: Walk) -> Tensor:
        return state.x


def steps_of(levels: list[NoiseLevel]) -> list[Step]:
    """Levels → the steps between them."""
    return [Step(now, then) for now, then in pairwise(levels)]


def noised_measurement(problem: Problem, level: NoiseLevel) -> Tensor:
    """α x' + σ z, x' the image that the operator makes of y: y itself where it has the size of x0, else A⁺y."""
    measurement = problem.measurement
    image = measurement.operator.initial_image(measurement.y)
    assert image is not None  # the caller requires INITIAL_IMAGE
    return level.diffuse(image, problem.rng.normal(problem.like))
