"""A method: everything that decides how an image is degraded and restored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_priors.diffusion.grids import Grid
from diffusion_priors.diffusion.image_random import image_generator
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.samplers import Sampler
from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.measurement import Measurement
from diffusion_priors.operators.noise_models import NoiseModel
from diffusion_priors.operators.requirements import DENSITY
from diffusion_priors.solvers.base import Solver, Step


@dataclass(frozen=True, kw_only=True)
class Method:
    """`solver` walks `grid` with `sampler` and `prior`, given y = `operator`(x0) with noise of `noise_model`.

    The fields are named like the config groups that they are built from.
    """

    operator: Operator
    noise_model: NoiseModel
    solver: Solver
    grid: Grid
    sampler: Sampler
    prior: Prior

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of x0."""
        return (self.prior.channels, *self.prior.size)

    def plan(self) -> list[Step]:
        """The steps of the solver. Raises ValueError where the prior's schedule does not have their levels."""
        return self.solver.plan(self.grid, self.prior.image_schedule)

    def approximation(self) -> str | None:
        """What the solver does not know of the noise, as a line to print; None where it follows the density, or the noise is Gaussian."""
        if not self.solver.uses_measurement or self.noise_model.gaussian or DENSITY in self.solver.requires:
            return None
        solver, noise = type(self.solver).__name__, type(self.noise_model).__name__
        return f"an approximation: {solver} takes {noise} noise for Gaussian noise with its standard deviation, sigma_y"

    def grey_measurement(self) -> Tensor:
        """The measurement (1, …) of a grey image. Raises ValueError where operator and noise model do not fit it."""
        grey, generators = torch.zeros(1, *self.image_shape), [image_generator(0, "check")]
        return Measurement.of(self.operator.draw(grey, generators), self.noise_model, grey, generators).y

    def check_compatible(self) -> None:
        """Raises ValueError, in one line, where two of them cannot be used together."""
        self.solver.check(self.operator, self.noise_model, self.sampler)
        self.plan()
        self.grey_measurement()
        self.sampler.check(self.prior.probe())
