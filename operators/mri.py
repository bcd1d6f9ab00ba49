"""Magnetic resonance imaging: y are entries of the image's Fourier transform (k-space), seen by one coil or by several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.operators.coil_maps import CoilMaps
from diffusion_priors.operators.drawing import Drawing, root_sum_of_squares
from diffusion_priors.operators.kspace_masks import KSpaceMask
from diffusion_priors.operators.linear import LinearOperator
from diffusion_priors.operators.spectrum import Fourier

SIDES = (-2, -1)


class MaskedKSpace(LinearOperator):
    """What one coil and several have in common: `mask` (B or 1, 1, 1 or H, W) once drawn, and y in the unit of k-space."""

    unit = "k-space of [-1, 1] images"
    mask: Tensor

    def __init__(self, mask: KSpaceMask) -> None:
        super().__init__()
        self.drawn_mask, self.random = mask, mask.random
        self.register_buffer("mask", None, persistent=False)

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        self.mask = self.drawn_mask(like, generators)
        return self

    def support(self, y: Tensor) -> Tensor:
        return self.mask

    def drawing(self, y: Tensor) -> Drawing:
        return Drawing.logarithmic("k-space magnitude", "k_y", "k_x", root_sum_of_squares(y))

    def first_look(self, y: Tensor) -> tuple[str, Tensor]:
        """Aᴴy: what is not measured is taken for 0."""
        return "zero-filled", self.adjoint(y)


class MRI(MaskedKSpace):
    """y = M ⊙ F x0, one coil, per channel: F is the centred orthonormal 2D FFT (fastMRI, Zbontar et al. 2018), M keeps entries.

    y is complex, (B, C, H, W), 0 where it is not measured, and no image. x0 is real, so that each entry of k-space also
    determines the one at the opposite frequency: s² is the mean of M over the two, 0, ½ or 1.
    """

    has_spectrum = True

    def forward(self, x0: Tensor) -> Tensor:
        return self.mask * to_kspace(x0)

    def adjoint(self, y: Tensor) -> Tensor:
        return to_image(self.mask * y).real

    def spectrum(self) -> Fourier:
        """s(ω) = √((M(ω) + M(−ω))/2); y is aligned with x0 by the inverse transform of y/s."""
        mask = torch.fft.ifftshift(self.mask, SIDES)
        s = ((mask + mask.flip(SIDES).roll((1, 1), SIDES)) / 2.0).sqrt()
        centred = torch.fft.fftshift(s, SIDES)
        return Fourier(s, lambda y: to_image(torch.where(self.mask > 0.0, y / centred, 0.0)).real)


class MultiCoilMRI(MaskedKSpace):
    """y_c = M ⊙ F(S_c ⊙ x0), Aᴴy = Re Σ_c S̄_c ⊙ F⁻¹(M ⊙ y_c): coils c with sensitivities S_c, the same M (Pruessmann et al. 1999).

    y is complex, (B, coils · C, H, W), coil by coil, and no image. AᴴA mixes pixels, so that inverses are iterated. `maps` is
    (1, coils, H, W) once drawn. Solvers expect ‖A‖ ≤ 1, which holds for Σ_c |S_c|² ≤ 1.
    """

    maps: Tensor

    def __init__(self, mask: KSpaceMask, maps: CoilMaps) -> None:
        super().__init__(mask)
        self.drawn_maps = maps
        self.register_buffer("maps", None, persistent=False)

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        maps = self.drawn_maps(like.shape[-2], like.shape[-1])
        self.maps = maps.to(device=like.device, dtype=torch.promote_types(like.dtype, torch.complex64))[None]
        return self

    def forward(self, x0: Tensor) -> Tensor:
        return self.mask * to_kspace(self.maps[:, :, None] * x0[:, None]).flatten(1, 2)

    def adjoint(self, y: Tensor) -> Tensor:
        coils = self.maps.shape[1]
        seen = to_image(self.mask * y).unflatten(1, (coils, -1))
        return (self.maps.conj()[:, :, None] * seen).sum(1).real

    def has_image_shape(self, y: Tensor) -> bool:
        return False


def to_kspace(x: Tensor) -> Tensor:
    """F x, the zero frequency in the middle."""
    return torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(x, SIDES), norm="ortho"), SIDES)


def to_image(y: Tensor) -> Tensor:
    """F⁻¹y, complex."""
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(y, SIDES), norm="ortho"), SIDES)
