"""The machine's ceiling for a network: each of its convolutions alone, and the floating-point operations of a call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing.machine import seconds

LAYOUTS = (torch.channels_last, torch.contiguous_format)


@dataclass(frozen=True)
class Shape:
    """A convolution of an image (channels in, height, width) by a kernel."""

    image: tuple[int, int, int]
    channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    @property
    def flops(self) -> int:
        """2 k² C_in C_out H W, H and W those of the output."""
        sides = [
            (side + 2 * pad - k) // s + 1 for side, pad, k, s in zip(self.image[1:], self.padding, self.kernel, self.stride, strict=True)
        ]
        return 2 * self.kernel[0] * self.kernel[1] * self.image[0] * self.channels * sides[0] * sides[1]


class _Recorded(TorchFunctionMode):
    """Keeps the shape of every convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: Counter[Shape] = Counter()

    def __torch_function__(self, function: Callable, types: Any, arguments: tuple = (), keywords: dict | None = None) -> Any:
        if function in (torch.conv2d, F.conv2d, torch.convolution):
            x, weight, _, stride, padding, *_ = (*arguments, *(keywords or {}).values(), *DEFAULTS[len(arguments) + len(keywords or {}) :])
            self.shapes[Shape(tuple(x.shape[1:]), weight.shape[0], tuple(weight.shape[2:]), pair(stride), pair(padding))] += 1
        return function(*arguments, **(keywords or {}))


DEFAULTS = (None, None, None, 1, 0)


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def inputs(size: tuple[int, int], batch: int, device: torch.device, gradient: bool = False) -> tuple[Tensor, Tensor]:
    """x and t of a call. All images are at one level, as in a run."""
    x = torch.randn(batch, 3, *size, device=device, requires_grad=gradient)
    return x, torch.full((1,), 500, device=device)


@torch.no_grad()
def convolutions(network: nn.Module, size: tuple[int, int]) -> Counter[Shape]:
    """How many convolutions of each shape a call has for one image."""
    with _Recorded() as recorded:
        network(*inputs(size, 1, next(network.parameters()).device))
    return recorded.shapes


def flops(network: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """The operations for one image, of a call and of a call with a vector-Jacobian product, counted from the shapes.

    Attention is counted as the two matrix products that it is, whatever computes it.
    """
    found = []
    for gradient in (False, True):
        x, t = inputs(size, 1, next(network.parameters()).device, gradient)
        with torch.set_grad_enabled(gradient), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            output = network(x.clone(), t)  # the counter's hooks take no leaf
            if gradient:
                torch.autograd.grad(output, x, output.detach())
        found.append(counter.get_total_flops())
    return found[0], found[1]


def ceiling(shapes: Counter[Shape], batch: int, dtype: torch.dtype, device: torch.device, repetitions: int, gradient: bool) -> float:
    """GFLOP/s of all convolutions, each by itself `repetitions` times in the better layout; with `gradient` those of the products too."""
    total = sum(count * _seconds(shape, batch, dtype, device, repetitions, gradient) for shape, count in shapes.items())
    done = sum(count * shape.flops for shape, count in shapes.items()) * batch * (2 if gradient else 1)
    return done / total / 1e9


def _seconds(shape: Shape, batch: int, dtype: torch.dtype, device: torch.device, repetitions: int, gradient: bool) -> float:
    """The median time of a convolution, in the better layout."""
    return min(median(_timed(shape, batch, dtype, device, layout, repetitions, gradient)) for layout in LAYOUTS)


def _timed(
    shape: Shape, batch: int, dtype: torch.dtype, device: torch.device, layout: torch.memory_format, repetitions: int, gradient: bool
) -> list[float]:
    x = torch.randn(batch, *shape.image, dtype=dtype, device=device).contiguous(memory_format=layout).requires_grad_(gradient)
    weight = torch.randn(shape.channels, shape.image[0], *shape.kernel, dtype=dtype, device=device).contiguous(memory_format=layout)

    def run() -> None:
        output = F.conv2d(x, weight, None, shape.stride, shape.padding)
        if gradient:
            torch.autograd.grad(output, x, output.detach())

    with torch.set_grad_enabled(gradient):
        run()
        return [seconds(run, device) for _ in range(repetitions)]
