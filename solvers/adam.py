"""Adam's moments as a state with one row per image."""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor


class Moments(NamedTuple):
    """m ← β₁ m + (1 − β₁) g, v ← β₂ v + (1 − β₂) g² (Kingma & Ba 2015, Alg. 1), (B, C, H, W), after `taken` (B,) gradients."""

    first: Tensor
    second: Tensor
    taken: Tensor

    @classmethod
    def zero(cls, like: Tensor) -> Self:
        nothing = torch.zeros_like(like)
        return cls(nothing, nothing, nothing.new_zeros(len(nothing)))

    def after(self, gradient: Tensor, beta1: float, beta2: float) -> tuple[Self, Tensor]:
        """The moments with one more gradient, and the direction m̂/(√v̂ + 10⁻⁸), each moment divided by 1 − β^taken."""
        first = self.first * beta1 + (1.0 - beta1) * gradient
        second = self.second * beta2 + (1.0 - beta2) * gradient**2
        taken = self.taken + 1.0
        steps = taken.view(-1, *[1] * (gradient.ndim - 1))
        direction = first / (1.0 - beta1**steps) / ((second / (1.0 - beta2**steps)).sqrt() + 1e-8)
        return type(self)(first, second, taken), direction
