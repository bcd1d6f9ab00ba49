"""The UNet of Ho et al. 2020 in the conventions of its authors, on the module tree of `networks.unet`."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_priors.diffusion.networks.convolution import Convolution
from diffusion_priors.diffusion.networks.normalisation import GroupNorm32
from diffusion_priors.diffusion.networks.unet import Downsample, UNet


class DDPMUNet(UNet):
    """ε̂ from x_t and t (Ho et al. 2020, App. B).

    Where it differs from guided-diffusion's UNet: sines come before cosines, with ω_i = 10000^(−i/(half − 1)); the image is halved
    by a convolution padded below and on the right; ε of the normalisation is 1e-6; attention has one head.
    """

    kind = "ddpm"

    def __init__(
        self,
        image_size: int = 256,
        in_channels: int = 3,
        num_channels: int = 128,
        channel_mult: Sequence[float] = (1, 1, 2, 2, 4, 4),
        num_res_blocks: int = 2,
        attention_resolutions: Sequence[int] = (16,),
        dropout: float = 0.0,
        max_groups: int = 32,
    ) -> None:
        super().__init__(
            image_size,
            in_channels,
            num_channels,
            channel_mult,
            num_res_blocks,
            attention_resolutions,
            num_heads=1,
            num_head_channels=-1,
            resblock_updown=False,
            use_scale_shift_norm=False,
            learn_sigma=False,
            dropout=dropout,
            max_groups=max_groups,
        )
        own = ("image_size", "in_channels", "num_channels", "channel_mult", "num_res_blocks", "attention_resolutions")
        self.flags = {"kind": self.kind} | {name: self.flags[name] for name in (*own, "dropout", "max_groups")}
        for module in self.modules():
            if isinstance(module, GroupNorm32):
                module.eps = 1e-6
            if isinstance(module, Downsample):
                module.op = PaddedAtTheEnd(module.op)

    def embedded(self, t: Tensor) -> Tensor:
        half = self.num_channels // 2
        frequency = torch.exp(torch.arange(half, device=t.device, dtype=torch.float32) * (-log(10000.0) / (half - 1)))
        angle = t.float()[:, None] * frequency
        return F.pad(torch.cat([angle.sin(), angle.cos()], dim=1), (0, self.num_channels % 2))


class PaddedAtTheEnd(Convolution):
    """A convolution of stride 2 whose image is padded by one below and on the right."""

    def __init__(self, like: nn.Conv2d) -> None:
        super().__init__(like.in_channels, like.out_channels, 3, stride=2)

    def forward(self, x: Tensor, doubled: bool = False) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)), doubled)
