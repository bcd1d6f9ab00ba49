"""Where a walk meets the coefficients of a measurement: at the level that is as noisy as they are."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.operators.measurement import Measurement


class Coefficients(NamedTuple):
    """α ȳ and V of N(α ȳ; x, V) at a level, by the coefficients of the operator's V; `later` where it is not their last level.

    V is infinite where there is nothing to compare with: where s = 0 and below τ.
    """

    target: Tensor
    variance: Tensor
    later: Tensor


def noised_coefficients(measurement: Measurement, level: NoiseLevel, levels: tuple[NoiseLevel, ...]) -> Coefficients:
    """α ȳ = α Uᴴy/s and V = σ² − α² u_τ² + α² max(σ_y²/s² − u_τ², 0) at `level`, one of the noisy `levels`, the noisiest first.

    u = σ/α. τ is the first level with u_τ ≤ σ_y/s, or the last one. What ȳ has of noise beyond that of τ is part of V.
    """
    spectrum = measurement.linear_operator.spectrum()
    ratios = (measurement.sigma_y.double() / spectrum.s) ** 2
    squares = torch.tensor([at.noise_to_signal**2 for at in levels], dtype=ratios.dtype, device=ratios.device)
    last = len(levels) - 1
    tau = (len(levels) - torch.searchsorted(squares.flip(0), ratios, right=True)).clamp_max(last)

    own, place = squares[tau], levels.index(level)
    variance = level.sigma**2 + level.alpha**2 * ((ratios - own).clamp_min(0.0) - own)
    seen = (spectrum.s > 0.0) & (tau >= place)
    target = torch.where(seen, level.alpha * spectrum.measured(measurement.y) / spectrum.s, 0.0)
    return Coefficients(target, torch.where(seen, variance.clamp_min(0.0), inf).to(target), seen & (tau > place))
