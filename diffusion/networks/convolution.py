"""A convolution whose graph keeps only its weights where these are frozen, and which knows the convolution of a doubled image."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_priors.diffusion.networks.kept import Kept

Pair = tuple[int, int]
ONE: Pair = (1, 1)
NONE: Pair = (0, 0)


class _Frozen(torch.autograd.Function):
    """∂(w ∗ x)ᵀ v is a function of v and w alone; torch keeps x too, although it is for the gradient of w."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, transposed: bool) -> Tensor:
        return torch.convolution(x, weight, bias, stride, padding, ONE, transposed, NONE, 1)

    @staticmethod
    def setup_context(context: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, *context.settings = inputs
        context.save_for_backward(weight)
        context.save_for_forward(weight)
        context.like = x.size(), x.stride(), x.dtype

    @staticmethod
    def jvp(context: Any, tangent: Tensor, *_: None) -> Tensor:
        stride, padding, transposed = context.settings
        return torch.convolution(tangent, context.saved_tensors[0], None, stride, padding, ONE, transposed, NONE, 1)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (weight,), (gradient,) = context.saved_tensors, gradients
        (size, strides, dtype), (stride, padding, transposed) = context.like, context.settings
        layout = torch.empty_strided(size, strides, dtype=dtype, device=gradient.device)  # of x; its values are not read
        found = torch.ops.aten.convolution_backward(
            gradient, layout, weight, None, stride, padding, ONE, transposed, NONE, 1, (True, False, False)
        )
        return found[0], None, None, None, None, None


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair = ONE, padding: Pair = NONE, transposed: bool = False) -> Tensor:
    """`torch.nn.functional.conv2d`, or `conv_transpose2d` where `transposed`, with the same values and gradients.

    Under torch.compile it is that very function, because the compiler keeps no more than is needed either.
    """
    dtype = precision(x)
    x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    if not (torch.is_grad_enabled() and x.requires_grad and frozen(weight, bias)):
        return torch.convolution(x, weight, bias, stride, padding, ONE, transposed, NONE, 1)
    return _Frozen.apply(x, weight, bias, stride, padding, transposed)


def frozen(weight: Tensor, bias: Tensor | None) -> bool:
    """Whether no gradient of the weights is wanted. A compiler sees to that by itself."""
    trained = weight.requires_grad or (bias is not None and bias.requires_grad)
    return not (trained or torch.compiler.is_compiling())


def precision(x: Tensor) -> torch.dtype:
    """The dtype in which a layer computes with x: that of autocast where it is on, else x's own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind) else x.dtype


class Convolution(nn.Conv2d):
    """`nn.Conv2d` that keeps its weights alone where they are frozen, and has them in the precision of autocast once."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int = 1, padding: int = 0, bias: bool = True) -> None:
        super().__init__(cin, cout, kernel, stride, padding, bias=bias)
        self._weights, self._biases = Kept(), Kept()

    def forward(self, x: Tensor, doubled: bool = False) -> Tensor:
        """x (B, C, H, W) → the convolution of x, or of x `doubled`: each pixel repeated in a square of 2 x 2.

        A CPU convolves a doubled image with `doubling`'s kernel, if it is frozen.
        """
        weight, bias, dtype, kept = self.weight, self.bias, precision(x), frozen(self.weight, self.bias)
        at_once = doubled and kept and x.device.type == "cpu" and self.padding == self.stride == ONE and self.kernel_size == (3, 3)
        if doubled and not at_once:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if kept and bias is not None:
            bias = self._biases(dtype, bias, partial(bias.to, dtype))
        if at_once:
            weight = self._weights((dtype, "doubled"), weight, lambda: doubling(self.weight).to(dtype))
            return conv2d(x, weight, bias, (2, 2), ONE, transposed=True)
        if kept:
            weight = self._weights(dtype, weight, partial(weight.to, dtype))
        return conv2d(x, weight, bias, self.stride, self.padding)  # type: ignore[arg-type]  # pairs, whatever nn.Conv2d was given


def doubling(weight: Tensor) -> Tensor:
    """W[n] = Σ_b w[2 + b − n], b ∈ {0, 1} in both directions: w ∗ (x doubled) is the transposed convolution of x by W, of stride 2.

    Of the nine products of a pixel, several meet the same value of x; four are left. `weight` (out, in, 3, 3) → (in, out, 4, 4).
    """
    flipped = weight.flip(2, 3).transpose(0, 1)
    shifted = [F.pad(flipped, (right, 1 - right, below, 1 - below)) for below in (0, 1) for right in (0, 1)]
    return torch.stack(shifted).sum(0).contiguous()
