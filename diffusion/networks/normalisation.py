"""The normalisation of the UNet, and its derivative in few passes over memory where the weights are frozen."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGE = 2**18
"""Numbers of x from which the few passes are faster than torch's kernels on a CPU."""
MANY = 1024
"""Pixels from which torch's forward kernel is the faster one all the same."""


class GroupNorm32(nn.GroupNorm):
    """y = (x − μ)/√(var + ε) · w + b per group, in float32 whatever the precision of its input; then y · (1 + scale) + shift."""

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """x (B, C, H, W); `scale` and `shift` (B, C, 1, 1), or (1, C, 1, 1) for all images."""
        if scale is None or shift is None:
            return self._normalised(x, self.weight, self.bias)
        if len(scale) == 1:  # one affine map for all images: w (1 + scale) and b (1 + scale) + shift
            stretch = 1 + scale.flatten()
            return self._normalised(x, self.weight * stretch, torch.addcmul(shift.flatten(), self.bias, stretch))
        return torch.addcmul(shift, self._normalised(x, self.weight, self.bias), 1 + scale)

    def _normalised(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        frozen = not (weight.requires_grad or bias.requires_grad or torch.compiler.is_compiling())
        if frozen and x.device.type == "cpu" and x.numel() >= LARGE and x.is_contiguous(memory_format=torch.channels_last):
            return _Frozen.apply(x, weight, bias, self.num_groups, self.eps)[0]
        if x.dtype in (torch.float32, torch.float64):
            return F.group_norm(x, self.num_groups, weight, bias, self.eps)
        return F.group_norm(x.float(), self.num_groups, weight, bias, self.eps).to(x.dtype)


class _Frozen(torch.autograd.Function):
    """y = x̂ w + b, x̂ = (x − μ) r, r = 1/√(var + ε), for an x whose channels lie together in memory; μ and r (B, groups) too.

    ∂x̂/∂x is the symmetric P v = r (v − mean(v) − x̂ mean(x̂ v)), means over a group, so that Jᵀ v = P (w v) and J v = w P v.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        batch, channels, height, width = x.shape
        if height * width >= MANY:
            return torch.native_group_norm(x, weight, bias, batch, channels, height * width, groups, eps)
        rows = _rows(x)
        mean = _mean(rows.sum(1), height * width, groups)
        centred = rows - _spread(mean, channels)
        rstd = torch.rsqrt(_mean(centred.square().sum(1), height * width, groups) + eps)
        return _as_image(torch.addcmul(bias, centred, _spread(rstd, channels) * weight), x), mean, rstd

    @staticmethod
    def setup_context(context: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        (x, weight, *_), (_, mean, rstd) = inputs, output
        context.mark_non_differentiable(mean, rstd)
        context.save_for_backward(x, weight, mean, rstd)
        context.save_for_forward(x, weight, mean, rstd)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        x, weight, mean, rstd = context.saved_tensors
        return _projected(gradients[0], weight, x, mean, rstd), None, None, None, None

    @staticmethod
    def jvp(context: Any, tangent: Tensor, *_: None) -> tuple[Tensor, None, None]:
        x, weight, mean, rstd = context.saved_tensors
        return _projected(tangent, torch.ones_like(weight), x, mean, rstd) * weight[:, None, None], None, None


def _projected(v: Tensor, weight: Tensor, x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    """P (w v) = r w v − r mean(w v) − r (x − μ) k with k = r² mean((x − μ) w v), per group; x and v (B, C, H, W)."""
    (channels, height, width), groups = x.shape[1:], mean.shape[1]
    v_rows, x_rows = _rows(v), _rows(x)
    first = _mean(v_rows.sum(1) * weight, height * width, groups)
    slope = rstd.square() * (_mean((v_rows * x_rows).sum(1) * weight, height * width, groups) - mean * first)
    constant = _spread(rstd * (mean * slope - first), channels)
    rest = torch.addcmul(constant, x_rows, _spread(-rstd * slope, channels))
    return _as_image(torch.addcmul(rest, v_rows, _spread(rstd, channels) * weight), x)


def _rows(x: Tensor) -> Tensor:
    """(B, C, H, W) → (B, H · W, C), in float32 or better."""
    rows = x.permute(0, 2, 3, 1).flatten(1, 2)
    return rows if rows.dtype == torch.float64 else rows.float()


def _as_image(rows: Tensor, like: Tensor) -> Tensor:
    """(B, H · W, C) → (B, C, H, W) in the dtype of `like`."""
    return rows.to(like.dtype).unflatten(1, like.shape[2:]).permute(0, 3, 1, 2)


def _mean(sums: Tensor, pixels: int, groups: int) -> Tensor:
    """The sums over `pixels` (B, C) → the means of the groups (B, groups)."""
    return sums.unflatten(1, (groups, -1)).mean(2) / pixels


def _spread(value: Tensor, channels: int) -> Tensor:
    """(B, groups) → (B, 1, C): every channel's value of its group."""
    return value.repeat_interleave(channels // value.shape[1], dim=1)[:, None]


def activated(h: Tensor) -> Tensor:
    """SiLU(h) = h / (1 + e^−h), in the memory of h where no graph needs h."""
    return F.silu(h, inplace=not h.requires_grad)
