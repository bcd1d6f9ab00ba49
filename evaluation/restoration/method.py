"""A method: all that decides how an image is degraded and restored."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from diffusion_priors.diffusion.grids import Grid
from diffusion_priors.diffusion.image_random import image_generator
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.priors import Prior
from diffusion_priors.diffusion.transitions import Transition
from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.noise_models import NoiseModel
from diffusion_priors.solvers.base import Solver


@dataclass(frozen=True, kw_only=True)
class Method:
    """`solver` walks the levels of `grid` with `transition` and `prior`, from y = `operator`(x0) with noise of `noise_model`.

    The fields are named like the config groups that they are built from.
    """

    operator: Operator
    noise_model: NoiseModel
    solver: Solver
    grid: Grid
    transition: Transition
    prior: Prior

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of x0."""
        return (self.prior.channels, *self.prior.size)

    def levels(self) -> list[NoiseLevel]:
        """The noise levels that the solver walks. Raises ValueError where the schedule does not have them."""
        return self.solver.levels(self.grid, self.prior.levels)

    def measurement_shape(self) -> tuple[int, ...]:
        """The shape of one y. Raises ValueError where the operator does not fit images of this size."""
        like = torch.zeros(1, *self.image_shape)
        self.operator.draw(like, [image_generator(0, "check")])
        return tuple(self.operator(like).shape[1:])

    def check_compatible(self) -> None:
        """Raises ValueError, in one line, for parts that cannot be used together."""
        self.levels()
        self.measurement_shape()
        self.transition.check(self.prior.probe())
