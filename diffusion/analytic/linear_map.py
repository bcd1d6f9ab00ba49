"""Linear maps inside a graph of autograd, at the cost of the map itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]


class LinearMap(torch.autograd.Function):
    """x ↦ F x: the vector-Jacobian product is `transposed`, v ↦ Fᵀ v. Autograd would keep what F computes on the way."""

    @staticmethod
    def forward(context: Any, x: Tensor, product: Product, transposed: Product) -> Tensor:
        context.product, context.transposed = product, transposed
        return product(x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return LinearMap.apply(gradient, context.transposed, context.product), None, None
