"""A blur that differs from place to place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.operators.base import IMAGE_UNIT
from diffusion_priors.operators.blur import DeblurGaussian
from diffusion_priors.operators.linear import LinearOperator
from diffusion_priors.operators.separable import Boundary


class DeblurVarying(LinearOperator):
    """y = (1 − W) G₁x0 + W G₂x0: the kernel goes over from that of the centre to that of the corners, as behind a simple lens.

    G are Gaussian blurs on `size` taps with the two `stds`, in pixels, and W is diagonal: the distance of a pixel from the
    middle of the image, 1 in the corners. Interpolated kernels are those of Nagy & O'Leary 1998. The adjoint
    G₁ᵀ(1 − W) + G₂ᵀW is exact; a spectrum is not known.

    Raises ValueError for an even size, a size beyond the image, or a std ≤ 0.
    """

    unit = IMAGE_UNIT
    share: Tensor

    def __init__(self, size: int = 15, stds: tuple[float, float] = (0.5, 3.0), boundary: Boundary = "reflect") -> None:
        super().__init__()
        if not min(stds) > 0.0:
            raise ValueError(f"both standard deviations must be positive, got {list(stds)}; set operator.stds=[centre,corners]")
        self.centre, self.corners = (DeblurGaussian(size, std, boundary) for std in stds)
        self.register_buffer("share", None, persistent=False)

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        for blur in (self.centre, self.corners):
            blur.draw(like, generators)
        rows, columns = (torch.linspace(-1.0, 1.0, side, dtype=torch.float64) * (side - 1) for side in like.shape[-2:])
        distance = (rows[:, None].square() + columns.square()).sqrt()
        self.share = (distance / distance.max().clamp_min(1.0)).to(like)[None, None]
        return self

    def forward(self, x0: Tensor) -> Tensor:
        return (1.0 - self.share) * self.centre(x0) + self.share * self.corners(x0)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.centre.adjoint((1.0 - self.share) * y) + self.corners.adjoint(self.share * y)
