"""Means of a mixture's components: each makes K images of any shape (C, H, W). Those made of numbers are in double precision."""

from __future__ import annotations

from math import prod
from typing import Protocol

import torch
from torch import Tensor

from diffusion_priors.diffusion.analytic.shapes import PowerLaw, Shape
from diffusion_priors.diffusion.image_random import image_generator

MOST_COMPONENTS = 10_000
"""Each of them is an image in memory."""


class Means(Protocol):
    """What makes K images (K, C, H, W)."""

    def __call__(self, shape: Shape) -> Tensor: ...


class Drawn:
    """`components` smooth images, drawn by `seed` from N(0, S), S with pixel deviation `std` and spectrum f^−exponent.

    Raises ValueError for fewer than one, or where PowerLaw does.
    """

    def __init__(self, components: int = 4, std: float = 0.35, exponent: float = 3.0, seed: int = 0) -> None:
        if not 1 <= components <= MOST_COMPONENTS:
            raise ValueError(f"a mixture has 1 to {MOST_COMPONENTS} components, got {components}; set prior.means.components")
        self.components, self.seed = components, seed
        self.law = PowerLaw(std, exponent)

    def __call__(self, shape: Shape) -> Tensor:
        generators = [image_generator(self.seed, k, "mean") for k in range(self.components)]
        z = torch.stack([torch.from_numpy(generator.standard_normal(shape)) for generator in generators])
        return self.law(shape).transform(torch.sqrt, z)


class Given:
    """The means as numbers: a list for each component, of one number for a flat image, or of C·H·W.

    Raises ValueError where a list is of another length.
    """

    def __init__(self, values: list[list[float]]) -> None:
        self.values = values

    def __call__(self, shape: Shape) -> Tensor:
        for row in self.values:
            if len(row) not in (1, prod(shape)):
                raise ValueError(f"a mean has 1 or {prod(shape)} numbers here, got {len(row)}; set prior.means.values, or prior.size")
        if not self.values:
            raise ValueError("a mixture needs at least one component; set prior.means.values")
        rows = [torch.tensor(row, dtype=torch.float64).expand(prod(shape)) for row in self.values]
        return torch.stack(rows).view(-1, *shape)
