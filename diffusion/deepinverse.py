"""Denoisers of DeepInverse (Tachella et al. 2023), whose images lie in [0, 1], as priors of this project, and the other way round."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.preconditioning import Denoising
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.schedules import VE, Schedule


def prior_from_deepinv(
    denoiser: nn.Module,
    size: tuple[int, int],
    sigma_max: float,
    channels: int = 3,
    sigma_min: float = 0.002,
    clip: bool = True,
) -> Prior:
    """The prior of a denoiser D(x, σ) of images in [0, 1]: x̂0 = 2 D((x_t + 1)/2, σ_t/2) − 1, for σ from sigma_min to sigma_max.

    `size` is the (height, width) that it restores, and both sigmas are in [0, 1] units, as DeepInverse's are. A sampler starts
    from noise alone at sigma_max: images must be lost in it, or the method must start from an image, as sdedit does.

    Raises ValueError for sizes and sigmas out of bounds.
    """
    return Prior(denoiser, VE(sigma_min, sigma_max), Denoising(), size, channels, pixel_range=(0.0, 1.0), clip=clip)


def to_deepinv(denoiser: Denoiser, schedule: Schedule) -> nn.Module:
    """D(x, σ) = (x̂0(α (2 x − 1), level) + 1)/2 at the level of `schedule` with σ_t/α_t = 2 σ, the nearest one there is.

    A deepinv.models.Denoiser of images (B, C, H, W) in [0, 1], σ a number or one per image; differentiable in x.
    """
    return _denoiser_class()(denoiser, schedule)


@cache
def _denoiser_class() -> Any:
    """The class, which needs DeepInverse."""
    from deepinv.models import Denoiser as Base

    class DiffusionPrior(Base):
        """D(x, σ) of a diffusion prior; see `to_deepinv`."""

        def __init__(self, denoiser: Denoiser, schedule: Schedule) -> None:
            super().__init__()
            self.denoiser, self.schedule = denoiser, schedule

        def forward(self, x: Tensor, sigma: float | Tensor, **_: object) -> Tensor:
            sigmas = torch.as_tensor(sigma).flatten().tolist()
            if len({*sigmas}) == 1:
                return self._at(x, sigmas[0])
            return torch.cat([self._at(row, own) for row, own in zip(x.split(1), sigmas, strict=True)])

        def _at(self, x: Tensor, sigma: float) -> Tensor:
            level = self.schedule.at(2.0 * sigma)
            return (self.denoiser(level.alpha * (2.0 * x - 1.0), level).x0 + 1.0) / 2.0

    return DiffusionPrior
