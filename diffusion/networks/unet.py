"""The guided-diffusion UNet (Dhariwal & Nichol 2021), key for key, so that its checkpoints load strictly.

The module tree is dictated by the state-dict keys: `input_blocks.i.0.in_layers.0`, `middle_block.1.qkv`, ….
What differs from the original: attention is `scaled_dot_product_attention`, parameters need not be
trainable for a vector-Jacobian product, and the number of groups of the normalisation is a parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd, log
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_priors.diffusion.networks.convolution import Convolution
from diffusion_priors.diffusion.networks.flags import check_flags, check_sides
from diffusion_priors.diffusion.networks.normalisation import GroupNorm32, activated
from diffusion_priors.diffusion.networks.recomputed import RecomputedBlocks

Norm = Callable[[int], nn.Module]
"""Channels → their normalisation."""
Layer = TypeVar("Layer", bound=nn.Module)


class UNet(RecomputedBlocks):
    """ε̂ (and, with learn_sigma, the variance channels v) from x_t and t.

    Input (B, in_channels, H, W) with H, W divisible by 2^(levels − 1), t (B,), or (1,) for all, as integers or floats;
    output (B, out_channels, H, W), out_channels = 2 · in_channels with `learn_sigma`.
    The flags are guided-diffusion's. `image_size` only says which levels `attention_resolutions` (side lengths
    in pixels) means; other image sizes run too. Heads have `num_head_channels` channels each, or there are
    `num_heads` of them where that is -1.
    `max_groups` and `min_group_channels` set each GroupNorm's groups to min(max_groups, channels / min_group_channels),
    or the largest common divisor of that and the channels; the original is 32 and 1.
    `flags` are the constructor's arguments as plain values; `kind` names the class on a prior's card.
    """

    kind = "unet"

    def __init__(
        self,
        image_size: int = 256,
        in_channels: int = 3,
        num_channels: int = 128,
        channel_mult: Sequence[float] = (1, 1, 2, 2, 4, 4),
        num_res_blocks: int = 1,
        attention_resolutions: Sequence[int] = (16,),
        num_heads: int = 4,
        num_head_channels: int = 64,
        resblock_updown: bool = True,
        use_scale_shift_norm: bool = True,
        new_attention_order: bool = False,
        learn_sigma: bool = True,
        dropout: float = 0.0,
        max_groups: int = 32,
        min_group_channels: int = 1,
    ) -> None:
        given = {name: list(value) if isinstance(value, Sequence) else value for name, value in locals().items()}
        super().__init__()
        self.flags = {name: value for name, value in given.items() if name not in ("self", "__class__")}
        check_flags(self.flags)
        self.num_channels = num_channels
        self.divisor = 2 ** (len(channel_mult) - 1)
        embed = 4 * num_channels
        attended = {image_size // side for side in attention_resolutions}

        def norm(channels: int) -> nn.GroupNorm:
            groups = max(1, min(max_groups, channels // min_group_channels))
            return GroupNorm32(gcd(groups, channels), channels)

        def res(cin: int, cout: int, resample: nn.Module | None = None) -> ResBlock:
            return ResBlock(cin, cout, embed, norm, use_scale_shift_norm, dropout, resample)

        def attention(channels: int) -> AttentionBlock:
            if num_head_channels != -1 and channels % num_head_channels:
                raise ValueError(f"{channels} channels cannot be shared among heads of {num_head_channels}; check num_head_channels")
            heads = num_heads if num_head_channels == -1 else channels // num_head_channels
            return AttentionBlock(channels, heads, norm, new_attention_order)

        self.time_embed = nn.Sequential(nn.Linear(num_channels, embed), nn.SiLU(), nn.Linear(embed, embed))

        ch = int(channel_mult[0] * num_channels)
        self.input_blocks = nn.ModuleList([Stage(Convolution(in_channels, ch, 3, padding=1))])
        skips, factor = [ch], 1
        for level, mult in enumerate(channel_mult):
            for _ in range(num_res_blocks):
                stage = Stage(res(ch, int(mult * num_channels)))
                ch = int(mult * num_channels)
                if factor in attended:
                    stage.append(attention(ch))
                self.input_blocks.append(stage)
                skips.append(ch)
            if level < len(channel_mult) - 1:
                down = res(ch, ch, nn.AvgPool2d(2)) if resblock_updown else Downsample(ch)
                self.input_blocks.append(Stage(down))
                skips.append(ch)
                factor *= 2

        self.middle_block = Stage(res(ch, ch), attention(ch), res(ch, ch))

        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(channel_mult))):
            for i in range(num_res_blocks + 1):
                stage = Stage(res(ch + skips.pop(), int(mult * num_channels)))
                ch = int(mult * num_channels)
                if factor in attended:
                    stage.append(attention(ch))
                if level and i == num_res_blocks:
                    up = nn.Upsample(scale_factor=2, mode="nearest")
                    stage.append(res(ch, ch, up) if resblock_updown else Upsample(ch))
                    factor //= 2
                self.output_blocks.append(stage)

        out_channels = 2 * in_channels if learn_sigma else in_channels
        self.out = nn.Sequential(norm(ch), nn.SiLU(), _zeroed(Convolution(ch, out_channels, 3, padding=1)))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        check_sides(x, self.divisor, "UNet")
        emb = self.time_embed(self.embedded(t).to(next(self.time_embed.parameters()).dtype))
        skips = []
        for stage in self.input_blocks:
            x = self.block(stage, x, emb)
            skips.append(x)
        x = self.block(self.middle_block, x, emb)
        for stage in self.output_blocks:
            x = self.joined(stage, x, skips.pop(), emb)
        return self.block(self.out, x)

    def embedded(self, t: Tensor) -> Tensor:
        return timestep_embedding(t, self.num_channels)


def timestep_embedding(t: Tensor, channels: int) -> Tensor:
    """[cos(t ω_i), sin(t ω_i)], ω_i = 10000^(−i/half), half = channels // 2 (Vaswani et al. 2017, Sec. 3.5).

    t (B,) → (B, channels), zero-padded by one where `channels` is odd.
    """
    half = channels // 2
    frequency = torch.exp(torch.arange(half, device=t.device, dtype=torch.float32) * (-log(10000.0) / half))
    angle = t.float()[:, None] * frequency
    return F.pad(torch.cat([angle.cos(), angle.sin()], dim=1), (0, channels % 2))


class Stage(nn.Sequential):
    """Blocks in a row; those that want the time embedding get it."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # type: ignore[override]  # nn.Sequential takes x alone
        for block in self:
            x = block(x, emb) if getattr(block, "takes_embedding", False) else block(x)
        return x


class ResBlock(nn.Module):
    """skip(x) + conv(SiLU(norm(h)·(1 + scale) + shift)), h = conv(SiLU(norm(x))) (Dhariwal & Nichol 2021, Sec. 3).

    `resample` halves or doubles the image inside the block; (scale, shift), or a plain shift without
    `use_scale_shift_norm`, come from the time embedding.
    """

    takes_embedding = True

    def __init__(
        self, cin: int, cout: int, embed: int, norm: Norm, use_scale_shift_norm: bool, dropout: float, resample: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(norm(cin), nn.SiLU(), Convolution(cin, cout, 3, padding=1))
        self.resample = resample
        self.use_scale_shift_norm = use_scale_shift_norm
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embed, 2 * cout if use_scale_shift_norm else cout))
        out_conv = _zeroed(Convolution(cout, cout, 3, padding=1))
        self.out_layers = nn.Sequential(norm(cout), nn.SiLU(), nn.Dropout(dropout), out_conv)
        self.skip_connection = nn.Identity() if cin == cout else Convolution(cin, cout, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        norm, _, conv = self.in_layers
        h = activated(norm(x))
        if isinstance(self.resample, nn.Upsample):
            h, x = conv(h, doubled=True), self.resample(x)
        elif self.resample is not None:
            h, x = conv(self.resample(h)), self.resample(x)
        else:
            h = conv(h)
        out_norm, _, dropout, out_conv = self.out_layers
        modulation = self.emb_layers(emb).to(h.dtype)[:, :, None, None]
        h = out_norm(h, *modulation.chunk(2, dim=1)) if self.use_scale_shift_norm else out_norm(h + modulation)
        return self.skip_connection(x) + out_conv(dropout(activated(h)))


class AttentionBlock(nn.Module):
    """x + proj(softmax(QKᵀ/√d) V) over all pixels (Vaswani et al. 2017, Eq. 1).

    The legacy order lays the qkv channels out head by head, (head, q|k|v, d); the new order q|k|v first.
    """

    def __init__(self, channels: int, heads: int, norm: Norm, new_attention_order: bool) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ValueError(f"{channels} channels cannot be shared among {heads} attention heads; check num_head_channels")
        self.heads = heads
        self.new_attention_order = new_attention_order
        self.norm = norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = _zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, *_ = x.shape
        pixels = self.norm(x).permute(0, 2, 3, 1).reshape(batch, -1, channels)
        qkv = F.linear(pixels, self.qkv.weight.squeeze(-1), self.qkv.bias)  # a 1x1 convolution, heads left contiguous
        if self.new_attention_order:
            q, k, v = qkv.view(batch, -1, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        else:
            q, k, v = qkv.view(batch, -1, self.heads, 3, channels // self.heads).permute(3, 0, 2, 1, 4)
        out = attended(q, k, v).transpose(1, 2).reshape(batch, -1, channels)
        out = F.linear(out, self.proj_out.weight.squeeze(-1), self.proj_out.bias)
        return x + out.view(batch, *x.shape[2:], channels).permute(0, 3, 1, 2)


def attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(QKᵀ/√d) V for q, k, v (B, heads, pixels, d).

    On a CPU, torch's own function is slower than plain products in half precision, and for very few pixels.
    """
    few = q.shape[-2] <= (1024 if q.dtype == torch.bfloat16 else 64)
    if q.device.type == "cpu" and few and not torch.compiler.is_compiling():
        return torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2), dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v)


class Downsample(nn.Module):
    """A strided convolution, where `resblock_updown` is off."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = Convolution(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    """Nearest-neighbour doubling and a convolution, where `resblock_updown` is off."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Convolution(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x, doubled=True)


def _zeroed(layer: Layer) -> Layer:
    """A layer that starts at zero, so that every residual block starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
