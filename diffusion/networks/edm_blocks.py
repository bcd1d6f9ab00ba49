"""The layers that DDPM++, NCSN++ and ADM of Karras et al. share, key for key, so that their weights load strictly.

The module tree is dictated by the names of the tensors in the checkpoints of NVlabs/edm: `norm0`, `conv0`, `affine`, …. Attention is
`scaled_dot_product_attention`, and parameters start as torch's layers do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, pi

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_priors.diffusion.networks.convolution import conv2d


class Resampled(nn.Module):
    """A convolution, after the image is halved (`down`) or doubled (`up`) with a separable filter; kernel 0 resamples alone.

    `fused` halves after the convolution, as where one layer does both.
    """

    resample_filter: Tensor

    def __init__(
        self, cin: int, cout: int, kernel: int, up: bool = False, down: bool = False, taps: Sequence[float] = (1, 1), fused: bool = False
    ) -> None:
        super().__init__()
        self.up, self.down, self.fused = up, down, fused
        layer = nn.Conv2d(cin, cout, kernel) if kernel else None
        self.weight: Tensor | None = None if layer is None else layer.weight
        self.bias: Tensor | None = None if layer is None else layer.bias
        if up or down:
            row = torch.tensor(list(taps), dtype=torch.float32)
            self.register_buffer("resample_filter", torch.outer(row, row)[None, None] / row.sum() ** 2)

    def forward(self, x: Tensor) -> Tensor:
        pad = self.weight.shape[-1] // 2 if self.weight is not None else 0
        if self.down and self.fused and self.weight is not None and self.bias is not None:
            return self._halved(F.conv2d(x, self.weight, padding=pad + self._reach), 0) + self.bias.view(-1, 1, 1)
        if self.up:
            taps = 4 * self.resample_filter.repeat(x.shape[1], 1, 1, 1)
            x = F.conv_transpose2d(x, taps, groups=x.shape[1], stride=2, padding=self._reach)
        if self.down:
            x = self._halved(x, self._reach)
        return x if self.weight is None else conv2d(x, self.weight, self.bias, padding=(pad, pad))

    @property
    def _reach(self) -> int:
        return (self.resample_filter.shape[-1] - 1) // 2

    def _halved(self, x: Tensor, padding: int) -> Tensor:
        return F.conv2d(x, self.resample_filter.repeat(x.shape[1], 1, 1, 1), groups=x.shape[1], stride=2, padding=padding)


class Norm(nn.GroupNorm):
    """GroupNorm of at most 32 groups of at least four channels."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(min(32, channels // 4), channels, eps)


@dataclass(frozen=True)
class Style:
    """What the blocks of one network have in common.

    `scale` multiplies each sum of a residual block. Heads have `head_channels` channels, or there is one where that is 0. With
    `modulated` the embedding scales and shifts the normalised layer; else it is added before. `projected`: what skips a block that
    resamples passes a 1 x 1 convolution.
    """

    embedding: int
    scale: float
    eps: float
    head_channels: int
    modulated: bool
    projected: bool
    taps: tuple[float, ...]
    dropout: float


class Block(nn.Module):
    """A residual block with perhaps attention (Dhariwal & Nichol 2021, Sec. 3; Song et al. 2021b, App. H)."""

    def __init__(self, cin: int, cout: int, style: Style, up: bool = False, down: bool = False, attention: bool = False) -> None:
        super().__init__()
        self.cin, self.cout, self.style = cin, cout, style
        self.norm0 = Norm(cin, style.eps)
        self.conv0 = Resampled(cin, cout, 3, up, down, style.taps)
        self.affine = nn.Linear(style.embedding, 2 * cout if style.modulated else cout)
        self.norm1 = Norm(cout, style.eps)
        self.conv1 = Resampled(cout, cout, 3)
        self.skip = None
        if cin != cout or up or down:
            self.skip = Resampled(cin, cout, 1 if style.projected or cin != cout else 0, up, down, style.taps)
        self.heads = (cout // style.head_channels if style.head_channels else 1) if attention else 0
        if self.heads:
            self.norm2 = Norm(cout, style.eps)
            self.qkv, self.proj = Resampled(cout, 3 * cout, 1), Resampled(cout, cout, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        modulation = self.affine(emb)[:, :, None, None].to(h.dtype)
        if self.style.modulated:
            scale, shift = modulation.chunk(2, dim=1)
            h = F.silu(self.norm1(h) * (1 + scale) + shift)
        else:
            h = F.silu(self.norm1(h + modulation))
        h = self.conv1(F.dropout(h, self.style.dropout, self.training))
        x = (h + (x if self.skip is None else self.skip(x))) * self.style.scale
        return x if not self.heads else (x + self.proj(self._attended(x))) * self.style.scale

    def _attended(self, x: Tensor) -> Tensor:
        """softmax(QKᵀ/√d) V over all pixels; the channels of qkv are laid out (head, channel, q|k|v)."""
        batch, channels, height, width = x.shape
        parts = self.qkv(self.norm2(x)).view(batch, self.heads, channels // self.heads, 3, height * width)
        q, k, v = parts.permute(3, 0, 1, 4, 2)
        return F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(x.shape)


class Positions(nn.Module):
    """[cos(t ω_i), sin(t ω_i)], ω_i = 10000^(−i/(half − endpoint)): t (B,) → (B, channels)."""

    def __init__(self, channels: int, endpoint: bool) -> None:
        super().__init__()
        self.pairs, self.endpoint = channels // 2, endpoint

    def forward(self, t: Tensor) -> Tensor:
        steps = torch.arange(self.pairs, dtype=torch.float32, device=t.device) / (self.pairs - self.endpoint)
        angle = t.float()[:, None] * torch.exp(-log(10000.0) * steps)
        return torch.cat([angle.cos(), angle.sin()], dim=1)


class Frequencies(nn.Module):
    """[cos(2π f_i t), sin(2π f_i t)] with the random frequencies f_i of the checkpoint: t (B,) → (B, channels)."""

    freqs: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", 16.0 * torch.randn(channels // 2))

    def forward(self, t: Tensor) -> Tensor:
        angle = t.float()[:, None] * (2 * pi * self.freqs)
        return torch.cat([angle.cos(), angle.sin()], dim=1)
