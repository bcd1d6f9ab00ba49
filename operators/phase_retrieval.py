"""Phase retrieval: a detector keeps the magnitudes of a Fourier transform and loses the phases."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Self

import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.operators.array_file import read_reals
from diffusion_priors.operators.base import Operator, uniform
from diffusion_priors.operators.drawing import Drawing, root_sum_of_squares

SIDES = (-2, -1)


class FourierMagnitudes(Operator):
    """What both experiments have in common: the `pixel_range` [low, high] of the object and the unit of y.

    The object is low + (high − low)(x0 + 1)/2 for x0 in [-1, 1]. The literature has two ranges. In [0, 1], as in the code of
    DAPS, light is not negative; in [-1, 1], as in the code of DPS, −x0 fits as well as x0.
    """

    def __init__(self, pixel_range: tuple[float, float] = (0.0, 1.0)) -> None:
        super().__init__()
        low, high = pixel_range
        if not (isfinite(low) and isfinite(high) and low < high):
            raise ValueError(f"the range of pixels must rise from low to high, got {list(pixel_range)}; set operator.pixel_range=[0,1]")
        self.low, self.high = low, high
        self.unit = f"Fourier magnitudes of [{low:g}, {high:g}] images"

    def field(self, x0: Tensor) -> Tensor:
        return self.low + (self.high - self.low) / 2.0 * (x0 + 1.0)

    def drawing(self, y: Tensor) -> Drawing:
        return Drawing.logarithmic("Fourier magnitude", "k_y", "k_x", root_sum_of_squares(y))


class PhaseRetrieval(FourierMagnitudes):
    """y = |F P x| per channel: P pads the object x with zeros, F is the centred orthonormal 2D FFT (Fienup 1982).

    P adds int(oversampling/8 · side) pixels on each side, as the code of DPS does: 2 gives 1.5 times the height and the
    width. An object rotated by 180° has the same y, and so has one that is moved within the zeros around it: only the prior
    can tell them apart. y is (B, C, H', W'), not linear in x0 and no image.

    Raises ValueError where `oversampling` pads nothing, and for a `pixel_range` that does not rise.
    """

    def __init__(self, oversampling: float = 2.0, pixel_range: tuple[float, float] = (0.0, 1.0)) -> None:
        super().__init__(pixel_range)
        if not oversampling > 0.0:
            raise ValueError(f"the oversampling must be positive, got {oversampling}; set operator.oversampling")
        self.oversampling = oversampling

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        if min(self.padding) < 1:
            height, width = like.shape[-2:]
            raise ValueError(f"oversampling={self.oversampling} pads nothing to a {height} x {width} image; raise operator.oversampling")
        return self

    @property
    def padding(self) -> tuple[int, int]:
        """Pixels added at the top and the bottom, and at the left and the right."""
        height, width = (int(self.oversampling / 8.0 * side) for side in self.image_shape[-2:])
        return height, width

    def forward(self, x0: Tensor) -> Tensor:
        height, width = self.padding
        padded = F.pad(self.field(x0), (width, width, height, height))
        return torch.fft.fftshift(torch.fft.fft2(padded, norm="ortho"), SIDES).abs()  # a shift of the image changes phases alone


class CodedDiffraction(FourierMagnitudes):
    """y_l = |F(e^{iφ_l} ⊙ x)|/√L, l = 1 … L: `masks` phase masks φ_l, uniform in [0, 2π) (Candès, Li & Soltanolkotabi 2015).

    Each image has its own masks, shared by its channels. They break the symmetries of plain phase retrieval. F is the centred
    orthonormal 2D FFT, so that all patterns together have the energy of x. y is (B, L · C, H, W), mask by mask, and no image.
    `path` is a file with your own φ instead, (L, H, W) in radians, the same for all images.

    Raises ValueError for fewer than one mask, a `pixel_range` that does not rise, and a file that holds no such masks.
    """

    phase: Tensor

    def __init__(self, masks: int = 4, pixel_range: tuple[float, float] = (0.0, 1.0), path: str | None = None) -> None:
        super().__init__(pixel_range)
        if masks < 1:
            raise ValueError(f"coded diffraction needs at least one mask, got {masks}; set operator.masks")
        self.path, self.random = path, path is None
        self.given = None if path is None else torch.from_numpy(read_reals(path, "phase masks", ("masks", "H", "W")))
        self.masks = masks if self.given is None else len(self.given)
        self.register_buffer("phase", None, persistent=False)

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        if self.given is None:
            self.phase = 2.0 * torch.pi * uniform(generators, self.masks, *like.shape[-2:], like=like)
            return self
        if self.given.shape[1:] != like.shape[-2:]:
            sizes = tuple(self.given.shape[1:]), tuple(like.shape[-2:])
            raise ValueError(f"the phase masks {self.path} are of {sizes[0]} pixels and the images are {sizes[1]}; set operator.path")
        self.phase = self.given.to(like)[None]
        return self

    def forward(self, x0: Tensor) -> Tensor:
        coded = torch.polar(torch.ones_like(self.phase), self.phase)[:, :, None] * self.field(x0)[:, None]
        return torch.fft.fftshift(torch.fft.fft2(coded, norm="ortho"), SIDES).abs().flatten(1, 2) / self.masks**0.5

    def drawing(self, y: Tensor) -> Drawing:
        patterns = root_sum_of_squares(y.unflatten(1, (self.masks, -1)).flatten(0, 1))
        side_by_side = patterns.unflatten(0, (-1, self.masks)).transpose(1, 2).flatten(2)
        return Drawing.logarithmic("diffraction patterns", "k_y", f"k_x of {self.masks} masks", side_by_side)

    def has_image_shape(self, y: Tensor) -> bool:
        """Never: diffraction patterns are no image, even where there is one of the shape of x0."""
        return False
