"""Phase retrieval: a detector keeps the magnitudes of a Fourier transform and loses the phases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.operators.base import Operator


class PhaseRetrieval(Operator):
    """y = |F P (x0 + 1)/2| per channel: P pads with zeros, F is the centred orthonormal 2D FFT (Fienup 1982).

    P adds int(oversampling/8 · side) pixels on each side, as the code of DPS does: 2 gives 1.5 times the height and the
    width. DPS takes the magnitudes of x0 in [-1, 1], where −x0 fits as well; here as in DAPS, light is not negative. An
    image rotated by 180° fits as well in either. y is (B, C, H', W'), not linear in x0 and no image.

    Raises ValueError where `oversampling` pads nothing.
    """

    unit = "Fourier magnitudes of [0, 1] images"

    def __init__(self, oversampling: float = 2.0) -> None:
        super().__init__()
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
        padded = F.pad((x0 + 1.0) / 2.0, (width, width, height, height))
        return torch.fft.fftshift(torch.fft.fft2(padded, norm="ortho"), (-2, -1)).abs()  # a shift of the image changes phases alone
