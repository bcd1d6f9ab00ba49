"""The forward models of DeepInverse (the extra `deepinv`; Tachella et al. 2023)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from numpy.random import Generator
from torch import Tensor, nn

from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.custom import Custom, CustomLinear


def deepinv(
    physics: Callable[[], Any],
    pixel_range: tuple[float, float] | None = None,
    own_adjoint: bool = True,
    unit: str = Operator.unit,
    seed: int = 0,
) -> Operator:
    """y = physics.A(x0), without the noise of the physics: any class of deepinv.physics with its own parameters.

    The physics is built once, with PyTorch's generator at `seed`: what it draws then is the same for all images. One that has
    an `A_adjoint` is linear and sees x0 in [-1, 1]; DeepInverse's images lie in [0, 1], which changes the unit of y alone.
    Another sees x0 in `pixel_range`, by default [0, 1]. So does phase retrieval, |B x|², whose `A_adjoint` is that of B.
    `own_adjoint` says whether Aᴴ is the physics' own or that by automatic differentiation. `unit` is "[-1, 1]" where y is an
    image.

    Raises ValueError for parameters that the physics ignores, for a `pixel_range` of a linear physics, and where the adjoint is
    not that of A: so for CompressiveSpectralImaging (version 0.5.0), and for Tomography with adjoint_via_backprop=False, whose
    backward pass is its approximate adjoint.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.manual_seed(seed)
        warnings.filterwarnings("error", message=".*passed to .* but are ignored")
        try:
            built = physics()
        except UserWarning as warning:
            raise ValueError(f"{warning}; leave out operator.physics.NAME") from warning
    if not isinstance(built, nn.Module) or not hasattr(built, "A"):
        raise ValueError(f"{type(built).__name__} has no A(x); set operator.physics._target_=deepinv.physics.CLASS")
    if not hasattr(built, "A_adjoint") or hasattr(built, "B_adjoint"):
        return DeepInverse(built, pixel_range or (0.0, 1.0), unit)
    if pixel_range is not None:
        raise ValueError(f"{type(built).__name__} is linear, so the range of its images is the unit of y alone; drop operator.pixel_range")
    return DeepInverseOwn(built, unit) if own_adjoint else DeepInverseLinear(built, unit)


class DeepInverse(Custom):
    """y = physics.A((x0 + 1)/2 · (high − low) + low), not linear."""

    def __init__(self, physics: nn.Module, pixel_range: tuple[float, float] = (-1.0, 1.0), unit: str = Operator.unit) -> None:
        super().__init__(physics, unit)
        self.physics, self.pixel_range = physics, pixel_range

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        self.physics._apply(lambda tensor: _alike(tensor, like))
        return super().draw(like, generators)

    def forward(self, x0: Tensor) -> Tensor:
        low, high = self.pixel_range
        return self.physics.A((x0 + 1.0) * ((high - low) / 2.0) + low)  # type: ignore[operator]


class DeepInverseLinear(DeepInverse, CustomLinear):
    """y = physics.A(x0), Aᴴ by automatic differentiation."""

    wrong_adjoint = "its A has a backward pass of its own; choose another one with its parameters, as adjoint_via_backprop=true"

    def __init__(self, physics: nn.Module, unit: str = Operator.unit) -> None:
        super().__init__(physics, unit=unit)

    def forward(self, x0: Tensor) -> Tensor:
        return self.physics.A(x0)  # type: ignore[operator]


class DeepInverseOwn(DeepInverseLinear):
    """y = physics.A(x0), Aᴴ = physics.A_adjoint."""

    wrong_adjoint = "set operator.own_adjoint=false for the one by automatic differentiation, or another parameter of the physics"

    def adjoint(self, y: Tensor) -> Tensor:
        x = self.physics.A_adjoint(y)  # type: ignore[operator]
        return x.real if x.is_complex() else x


def _alike(tensor: Tensor, like: Tensor) -> Tensor:
    """On the device of `like`, with its precision where there is one."""
    if tensor.is_complex():
        return tensor.to(device=like.device, dtype=torch.promote_types(like.dtype, torch.complex64))
    return tensor.to(like) if tensor.is_floating_point() else tensor.to(like.device)
