"""Sensitivity maps of receiver coils, (coils, H, W) complex: what each coil sees of a pixel."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from diffusion_priors.operators.array_file import read_array


class CoilMaps:
    """A call gives the maps for images of (height, width), complex double precision."""

    def __call__(self, height: int, width: int) -> Tensor:
        raise NotImplementedError


class SimulatedMaps(CoilMaps):
    """S_c(p) ∝ e^{i(φ_c(p) − 2πc/N)}/|p − p_c|, Σ_c |S_c|² = 1: N `coils` on a ring around the image, `radius` half diagonals wide.

    φ_c is the direction of p as seen from the coil: a birdcage seen by a wire at p_c. Raises ValueError for fewer than one
    coil, or a radius that is not beyond the image.
    """

    def __init__(self, coils: int = 4, radius: float = 1.2) -> None:
        if coils < 1:
            raise ValueError(f"a scanner needs at least one coil, got {coils}; set operator.maps.coils")
        if not 1.0 < radius <= 100.0:
            raise ValueError(f"the coils stand outside the image, at a radius from 1 to 100, got {radius}; set operator.maps.radius")
        self.coils, self.radius = coils, radius

    def __call__(self, height: int, width: int) -> Tensor:
        turn = 2.0 * torch.pi * torch.arange(self.coils, dtype=torch.float64).view(-1, 1, 1) / self.coils
        ring = self.radius * (height**2 + width**2) ** 0.5 / 2.0
        row = torch.arange(height, dtype=torch.float64).view(-1, 1) - (height - 1) / 2.0 - ring * turn.sin()
        column = torch.arange(width, dtype=torch.float64) - (width - 1) / 2.0 - ring * turn.cos()
        maps = torch.polar(1.0 / (row.square() + column.square()).sqrt(), torch.atan2(row, column) - turn)
        return maps / maps.abs().square().sum(0).sqrt()


class GivenMaps(CoilMaps):
    """The maps of a file, (coils, H, W), taken as they are. They must have the size of the images.

    Raises ValueError where they cannot be read, have another shape, or are 0.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.maps = read_array(path, "sensitivity maps", "operator.maps.path").astype(np.complex128)
        if self.maps.ndim != 3 or not self.maps.any():
            raise ValueError(
                f"the sensitivity maps {path} must be (coils, H, W) and not all 0, got shape {self.maps.shape}; set operator.maps.path"
            )

    def __call__(self, height: int, width: int) -> Tensor:
        if self.maps.shape[1:] != (height, width):
            raise ValueError(
                f"the sensitivity maps {self.path} are of {self.maps.shape[1:]} pixels and the images are {(height, width)}; "
                "set operator.maps.path"
            )
        return torch.from_numpy(self.maps)
