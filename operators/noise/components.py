"""Noise whose real components are independent: those of y, or the real and imaginary parts of a complex y."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.operators.base import IMAGE_UNIT


def components(y: Tensor) -> Tensor:
    """y itself where it is real, (…, 2) where it is complex."""
    return torch.view_as_real(y) if y.is_complex() else y


def drawn_like(clean: Tensor, generators: Sequence[Generator], draw: Callable[[Generator, tuple[int, ...]], np.ndarray]) -> Tensor:
    """Noise shaped like `clean`: `draw`(generator, shape) gives the real components of an image."""
    shape = tuple(components(clean).shape[1:])
    noise = torch.stack([torch.from_numpy(draw(generator, shape)) for generator in generators])
    return (torch.view_as_complex(noise) if clean.is_complex() else noise).to(clean)


def summed(values: Tensor, support: Tensor, y: Tensor) -> Tensor:
    """The sum of `values`, one per real component of y, over the support, (B,)."""
    kept = support.expand(y.shape)
    kept = kept[..., None] if y.is_complex() else kept
    return torch.where(kept > 0.0, values, 0.0).flatten(1).sum(1)


def both_units(sigma: float, unit: str) -> str:
    """A standard deviation in `unit`, and on [0, 1] images where y is an image."""
    return f"{sigma:g} in {unit}" + (f" = {sigma / 2:g} in [0, 1]" if unit == IMAGE_UNIT else "")
