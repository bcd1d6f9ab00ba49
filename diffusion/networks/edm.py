"""The two networks of Karras et al. 2022 (Table 7): DDPM++/NCSN++ of Song et al. and ADM of Dhariwal & Nichol, without classes."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_priors.diffusion.networks.edm_blocks import Block, Frequencies, Norm, Positions, Resampled, Style
from diffusion_priors.diffusion.networks.flags import MOST, WIDEST, check_sides
from diffusion_priors.diffusion.networks.recomputed import RecomputedBlocks


class EdmNetwork(RecomputedBlocks):
    """What both share. Input (B, channels, H, W) and c_noise (B,), output (B, channels, H, W).

    `augment_dim` is the number of labels of augmentation that it was trained with; none is given here, which stands for an image as
    it is. `flags` are the constructor's arguments with the network's `kind`, as a prior's card holds them.
    """

    kind: str
    enc: nn.ModuleDict
    dec: nn.ModuleDict

    def prepare(self, given: dict[str, Any]) -> None:
        """Keep the constructor's arguments. Raises ValueError where they are out of bounds."""
        plain = {key: list(value) if isinstance(value, Sequence) else value for key, value in given.items()}
        self.flags: dict[str, Any] = {"kind": self.kind}
        self.flags |= {key: value for key, value in plain.items() if key not in ("self", "__class__")}
        mults, base = self.flags["channel_mult"], self.flags["model_channels"]
        most = {"image_size": MOST["image_size"], "model_channels": WIDEST, "num_blocks": MOST["num_res_blocks"], "channel_mult_emb": 64}
        wrong = [name for name, bound in most.items() if not 1 <= self.flags[name] <= bound]
        if wrong or not 1 <= len(mults) <= 16 or not all(1 <= mult * base <= WIDEST for mult in mults) or self.flags["augment_dim"] > 64:
            raise ValueError(f"{wrong[0] if wrong else 'channel_mult'} is out of bounds: {self.flags}; check the network's flags")
        self.divisor = 2 ** (len(mults) - 1)

    def embed_with(self, noise: nn.Module, noise_channels: int, embedding: int, augment_dim: int) -> None:
        """The layers from c_noise to the embedding."""
        self.map_noise = noise
        self.map_augment = nn.Linear(augment_dim, noise_channels, bias=False) if augment_dim else None
        self.map_layer0, self.map_layer1 = nn.Linear(noise_channels, embedding), nn.Linear(embedding, embedding)

    def embedding(self, t: Tensor) -> Tensor:
        return F.silu(self.map_layer1(F.silu(self.map_layer0(self.waves(t).to(self.map_layer0.weight.dtype)))))

    def waves(self, t: Tensor) -> Tensor:
        """c_noise as cosines, then sines."""
        return self.map_noise(t)

    def decoded(self, skips: list[Tensor], emb: Tensor) -> Tensor:
        x = skips[-1]
        for block in self.dec.values():
            if isinstance(block, Block):
                x = self.block(block, x, emb) if x.shape[1] == block.cin else self.joined(block, x, skips.pop(), emb)
        return x


def decoder(
    widths: list[int], first: int, sides: list[int], num_blocks: int, attended: Sequence[int], everywhere: bool, style: Style
) -> dict[str, nn.Module]:
    """The blocks of a decoder by name. Attention is at the end of an attended level, or `everywhere` on it, and in the middle."""
    skips = [first] + [w for i, width in enumerate(widths) for w in [widths[i - 1]] * (i > 0) + [width] * num_blocks]
    blocks: dict[str, nn.Module] = {}
    channels = widths[-1]
    for level in reversed(range(len(widths))):
        name = f"{sides[level]}x{sides[level]}"
        if level == len(widths) - 1:
            blocks[f"{name}_in0"] = Block(channels, channels, style, attention=True)
            blocks[f"{name}_in1"] = Block(channels, channels, style)
        else:
            blocks[f"{name}_up"] = Block(channels, channels, style, up=True)
        for i in range(num_blocks + 1):
            attention = sides[level] in attended and (everywhere or i == num_blocks)
            blocks[f"{name}_block{i}"] = Block(channels + skips.pop(), widths[level], style, attention=attention)
            channels = widths[level]
    return blocks


class SongUNet(EdmNetwork):
    """DDPM++ and, with `fourier`, `residual_encoder` and taps 1, 3, 3, 1, NCSN++ (Song et al. 2021b, App. H)."""

    kind = "song"

    def __init__(
        self,
        image_size: int = 64,
        in_channels: int = 3,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        channel_mult_emb: int = 4,
        channel_mult_noise: int = 1,
        num_blocks: int = 4,
        attention_resolutions: Sequence[int] = (16,),
        fourier: bool = False,
        residual_encoder: bool = False,
        resample_filter: Sequence[int] = (1, 1),
        augment_dim: int = 9,
        dropout: float = 0.0,
    ) -> None:
        given = dict(locals())
        super().__init__()
        self.prepare(given)
        embedding, noise = model_channels * channel_mult_emb, model_channels * channel_mult_noise
        style = Style(embedding, sqrt(0.5), 1e-6, 0, False, True, tuple(map(float, resample_filter)), dropout)
        self.embed_with(Frequencies(noise) if fourier else Positions(noise, endpoint=True), noise, embedding, augment_dim)
        widths, sides = [model_channels * mult for mult in channel_mult], [image_size >> level for level in range(len(channel_mult))]
        self.enc = nn.ModuleDict({f"{image_size}x{image_size}_conv": Resampled(in_channels, model_channels, 3)})
        channels, before = model_channels, in_channels
        for level, width in enumerate(widths):
            name = f"{sides[level]}x{sides[level]}"
            if level:
                self.enc[f"{name}_down"] = Block(channels, channels, style, down=True)
                if residual_encoder:
                    self.enc[f"{name}_aux_residual"] = Resampled(before, channels, 3, down=True, taps=style.taps, fused=True)
                    before = channels
            for i in range(num_blocks):
                self.enc[f"{name}_block{i}"] = Block(channels, width, style, attention=sides[level] in attention_resolutions)
                channels = width
        self.dec = nn.ModuleDict(decoder(widths, model_channels, sides, num_blocks, attention_resolutions, False, style))
        self.dec[f"{image_size}x{image_size}_aux_norm"] = Norm(widths[0], 1e-6)
        self.dec[f"{image_size}x{image_size}_aux_conv"] = Resampled(widths[0], in_channels, 3)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        check_sides(x, self.divisor, "network")
        skips: list[Tensor] = []
        emb, auxiliary = self.embedding(t), x
        for block in self.enc.values():
            if isinstance(block, Block):
                skips.append(self.block(block, skips[-1], emb))
            elif not skips:
                skips.append(block(x))
            else:
                auxiliary = skips[-1] = (skips[-1] + block(auxiliary)) * sqrt(0.5)
        norm, conv = list(self.dec.values())[-2:]
        return self.block(lambda h: conv(F.silu(norm(h))), self.decoded(skips, emb))

    def waves(self, t: Tensor) -> Tensor:
        """Sines come before cosines."""
        cos, sin = self.map_noise(t).chunk(2, dim=1)
        return torch.cat([sin, cos], dim=1)


class DhariwalUNet(EdmNetwork):
    """ADM: guided-diffusion's UNet under other names, with its groups of at least four channels (Dhariwal & Nichol 2021)."""

    kind = "dhariwal"

    def __init__(
        self,
        image_size: int = 64,
        in_channels: int = 3,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_emb: int = 4,
        num_blocks: int = 3,
        attention_resolutions: Sequence[int] = (32, 16, 8),
        augment_dim: int = 0,
        dropout: float = 0.0,
    ) -> None:
        given = dict(locals())
        super().__init__()
        self.prepare(given)
        embedding = model_channels * channel_mult_emb
        style = Style(embedding, 1.0, 1e-5, 64, True, False, (1.0, 1.0), dropout)
        self.embed_with(Positions(model_channels, endpoint=False), model_channels, embedding, augment_dim)
        widths, sides = [model_channels * mult for mult in channel_mult], [image_size >> level for level in range(len(channel_mult))]
        self.enc = nn.ModuleDict({f"{image_size}x{image_size}_conv": Resampled(in_channels, widths[0], 3)})
        channels = widths[0]
        for level, width in enumerate(widths):
            name = f"{sides[level]}x{sides[level]}"
            if level:
                self.enc[f"{name}_down"] = Block(channels, channels, style, down=True)
            for i in range(num_blocks):
                self.enc[f"{name}_block{i}"] = Block(channels, width, style, attention=sides[level] in attention_resolutions)
                channels = width
        self.dec = nn.ModuleDict(decoder(widths, widths[0], sides, num_blocks, attention_resolutions, True, style))
        self.out_norm, self.out_conv = Norm(widths[0]), Resampled(widths[0], in_channels, 3)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        check_sides(x, self.divisor, "network")
        emb = self.embedding(t)
        skips: list[Tensor] = []
        for block in self.enc.values():
            skips.append(self.block(block, skips[-1], emb) if isinstance(block, Block) else block(x))
        return self.block(lambda h: self.out_conv(F.silu(self.out_norm(h))), self.decoded(skips, emb))
