"""Weightings: the weight of each noise level in the training loss."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.preconditioning import Preconditioning


class Weighting:
    """w(level), the factor of the preconditioning's squared error. A level holds one value per image, (B, 1, 1, 1)."""

    def __call__(self, level: NoiseLevel, preconditioning: Preconditioning) -> Tensor:
        raise NotImplementedError


class Simple(Weighting):
    """w = 1: L_simple for eps (Ho et al. 2020, Eq. 14), and the unweighted error of the other preconditionings."""

    def __call__(self, level, preconditioning):
        return torch.ones_like(level.alpha)


class MinSNR(Weighting):
    """w · gain = min(SNR, γ), SNR = α²/σ²: the weight of ‖x̂0 − x0‖² is the same for every preconditioning (Hang et al. 2023, Eq. 8).

    With a `floor` it is min(max(SNR, floor), γ), so that the noisiest levels, whose SNR is almost 0, are learnt sooner.
    floor = 1 and γ = ∞ are the truncated SNR weighting of Salimans & Ho 2022, Sec. 4.

    Raises ValueError for a γ that is not positive, and for a floor that is negative or above γ.
    """

    def __init__(self, gamma: float = 5.0, floor: float = 0.0) -> None:
        if not gamma > 0.0:
            raise ValueError(f"gamma must be positive, got {gamma}; set weighting.gamma")
        if not 0.0 <= floor <= gamma:
            raise ValueError(f"floor must be between 0 and gamma = {gamma}, got {floor}; set weighting.floor")
        self.gamma, self.floor = gamma, floor

    def __call__(self, level, preconditioning):
        snr = (level.alpha / level.sigma) ** 2
        return snr.clamp(self.floor, self.gamma) / preconditioning.gain(level)
