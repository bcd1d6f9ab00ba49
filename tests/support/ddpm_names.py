"""A network of diffusers under the names of DDPM in PyTorch."""

from __future__ import annotations

import re

from torch import Tensor

DDPM = {
    "sample_size": 32,
    "block_out_channels": (32, 64, 64, 64),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}
"""google/ddpm-cifar10-32, a quarter as wide."""
INNER = {
    "time_emb_proj": "temb_proj",
    "conv_shortcut": "nin_shortcut",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
OUTER = {
    "time_embedding.linear_1": "temb.dense.0",
    "time_embedding.linear_2": "temb.dense.1",
    "conv_norm_out": "norm_out",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
    "resnets": "block",
    "attentions": "attn",
}


def in_the_names_of_ddpm(state: dict[str, Tensor], levels: int = 4) -> dict[str, Tensor]:
    """The tensors of UNet2DModel as pesser/pytorch_diffusion names and shapes them."""
    found = {}
    for name, tensor in state.items():
        for today, before in OUTER.items():
            name = name.replace(today, before)
        name = re.sub(r"up_blocks\.(\d)", lambda found: f"up.{levels - 1 - int(found[1])}", name).replace("down_blocks", "down")
        for today, before in INNER.items():
            name = name.replace(f".{today}.", f".{before}.")
        linear = tensor.dim() == 2 and re.search(r"\.(q|k|v|proj_out)\.weight", name)
        found[name] = tensor[:, :, None, None] if linear else tensor
    return found
