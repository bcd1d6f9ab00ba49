"""Magnetic resonance imaging: y are columns of the image's Fourier transform (k-space)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.operators.base import uniform
from diffusion_priors.operators.linear import LinearOperator
from diffusion_priors.operators.spectrum import Fourier

SIDES = (-2, -1)


class MRI(LinearOperator):
    """y = M ⊙ F x0, one coil, per channel: F is the centred orthonormal 2D FFT, M keeps columns of k-space.

    The middle `center_fraction` of the columns is always measured (Zbontar et al. 2018, fastMRI). Of the others so many
    that all together are 1/`acceleration` of the width: equispaced from the first one, or with `random_columns` each
    with the same probability, per image. fastMRI draws the offset of equispaced columns; here it is 0.

    y is complex, (B, C, H, W), 0 where it is not measured, and no image. x0 is real, so that each entry of k-space also
    determines the one at the opposite frequency: s² is the mean of M over the two, 0, ½ or 1. `mask` is
    (B or 1, 1, 1, W) once drawn. Raises ValueError where the centre alone is more than 1/`acceleration` of the width.
    """

    has_spectrum = True
    unit = "k-space of [-1, 1] images"
    mask: Tensor

    def __init__(self, acceleration: float = 4.0, center_fraction: float = 0.08, random_columns: bool = False) -> None:
        super().__init__()
        if not acceleration >= 1.0:
            raise ValueError(f"the acceleration must be at least 1, got {acceleration}; set operator.acceleration")
        if not 0.0 < center_fraction <= 1.0 / acceleration:
            raise ValueError(
                f"the centre must be between 0 and 1/acceleration = {1.0 / acceleration:.3g} of the columns, "
                f"got {center_fraction}; set operator.center_fraction"
            )
        self.acceleration, self.center_fraction, self.random = acceleration, center_fraction, random_columns
        self.register_buffer("mask", None, persistent=False)

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        width = like.shape[-1]
        center = max(1, round(self.center_fraction * width))
        share = max(0.0, width / self.acceleration - center) / max(1, width - center)  # of the columns outside the centre
        if self.random:
            self.mask = (uniform(generators, 1, 1, width, like=like) < share).to(like)
        else:
            count = torch.arange(width, dtype=torch.float64)
            self.mask = ((count * share).ceil() < ((count + 1.0) * share).ceil()).to(like).view(1, 1, 1, width)
        start = (width - center + 1) // 2
        self.mask[..., start : start + center] = 1.0
        return self

    def forward(self, x0: Tensor) -> Tensor:
        return self.mask * torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(x0, SIDES), norm="ortho"), SIDES)

    def adjoint(self, y: Tensor) -> Tensor:
        return _inverse(self.mask * y)

    def support(self, y: Tensor) -> Tensor:
        return self.mask

    def spectrum(self) -> Fourier:
        """s(ω) = √((M(ω) + M(−ω))/2); y is aligned with x0 by the inverse transform of y/s."""
        mask = torch.fft.ifftshift(self.mask, -1)
        s = ((mask + mask.flip(-1).roll(1, -1)) / 2.0).sqrt()
        centred = torch.fft.fftshift(s, -1)
        return Fourier(s, lambda y: _inverse(torch.where(self.mask > 0.0, y / centred, 0.0)))


def _inverse(y: Tensor) -> Tensor:
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(y, SIDES), norm="ortho"), SIDES).real
