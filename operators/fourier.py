"""Compressed sensing in the Fourier domain."""

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


class FourierRandom(LinearOperator):
    """y = M ⊙ F x0 per channel: F is the centred orthonormal 2D FFT, M keeps each frequency with probability `keep`, per image.

    The middle `center_fraction` of the rows and of the columns, the low frequencies, is measured in any case: partial Fourier
    sampling as in Candès, Romberg & Tao 2006, whose M has no centre. y is complex, (B, C, H, W), 0 where it is not measured,
    and no image. x0 is real, so that each frequency also determines the opposite one: s² is the mean of M over the two.

    Raises ValueError where a share lies outside its range.
    """

    random = True
    has_spectrum = True
    unit = "Fourier coefficients of [-1, 1] images"
    mask: Tensor

    def __init__(self, keep: float = 0.25, center_fraction: float = 0.08) -> None:
        super().__init__()
        if not 0.0 < keep < 1.0:
            raise ValueError(f"the probability of a kept frequency must lie between 0 and 1 (exclusive), got {keep}; set operator.keep")
        if not 0.0 <= center_fraction <= 1.0:
            raise ValueError(f"the centre must be between 0 and 1 of the sides, got {center_fraction}; set operator.center_fraction")
        self.keep, self.center_fraction = keep, center_fraction
        self.register_buffer("mask", None, persistent=False)

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        self.mask = (uniform(generators, 1, *like.shape[-2:], like=like) < self.keep).to(like)
        rows, columns = (_middle(side, self.center_fraction) for side in like.shape[-2:])
        self.mask[..., rows, columns] = 1.0
        return self

    def forward(self, x0: Tensor) -> Tensor:
        return self.mask * torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(x0, SIDES), norm="ortho"), SIDES)

    def adjoint(self, y: Tensor) -> Tensor:
        return _inverse(self.mask * y)

    def support(self, y: Tensor) -> Tensor:
        return self.mask

    def spectrum(self) -> Fourier:
        """s(ω) = √((M(ω) + M(−ω))/2); y is aligned with x0 by the inverse transform of y/s."""
        mask = torch.fft.ifftshift(self.mask, SIDES)
        s = ((mask + mask.flip(SIDES).roll((1, 1), SIDES)) / 2.0).sqrt()
        centred = torch.fft.fftshift(s, SIDES)
        return Fourier(s, lambda y: _inverse(torch.where(self.mask > 0.0, y / centred, 0.0)))


def _middle(side: int, fraction: float) -> slice:
    """The middle ones of `side` centred frequencies; the frequency 0 is among them."""
    count = max(1, round(fraction * side))
    start = (side - count + 1) // 2
    return slice(start, start + count)


def _inverse(y: Tensor) -> Tensor:
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(y, SIDES), norm="ortho"), SIDES).real
