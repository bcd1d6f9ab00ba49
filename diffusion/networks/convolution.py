"""A convolution whose graph keeps only its weights where these are frozen."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pair = tuple[int, int]


class _Frozen(torch.autograd.Function):
    """∂(w ∗ x)ᵀ v is a function of v and w alone; torch keeps x too, although it is for the gradient of w."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def setup_context(context: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, *context.settings = inputs
        context.save_for_backward(weight)
        context.save_for_forward(weight)
        context.like = x.size(), x.stride(), x.dtype

    @staticmethod
    def jvp(context: Any, tangent: Tensor, *_: None) -> Tensor:
        return F.conv2d(tangent, context.saved_tensors[0], None, *context.settings)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        (weight,), (gradient,) = context.saved_tensors, gradients
        (size, strides, dtype), (stride, padding) = context.like, context.settings
        layout = torch.empty_strided(size, strides, dtype=dtype, device=gradient.device)  # of x; its values are not read
        found = torch.ops.aten.convolution_backward(
            gradient, layout, weight, None, stride, padding, (1, 1), False, (0, 0), 1, (True, False, False)
        )
        return found[0], None, None, None, None


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair = (1, 1), padding: Pair = (0, 0)) -> Tensor:
    """`torch.nn.functional.conv2d` with the same values and gradients.

    Under torch.compile it is that very function, because the compiler keeps no more than is needed either.
    """
    trained = weight.requires_grad or (bias is not None and bias.requires_grad)
    if trained or not (torch.is_grad_enabled() and x.requires_grad) or torch.compiler.is_compiling():
        return F.conv2d(x, weight, bias, stride, padding)
    if torch.amp.is_autocast_available(x.device.type) and torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    return _Frozen.apply(x, weight, bias, stride, padding)


class Convolution(nn.Conv2d):
    """`nn.Conv2d` that keeps its weights alone where they are frozen."""

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.weight, self.bias, self.stride, self.padding)  # type: ignore[arg-type]  # pairs, whatever nn.Conv2d was given
