"""The tensors of this project's UNet under the names of diffusers' UNet2DModel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from torch import Tensor, nn

from diffusion_priors.diffusion.networks.unet import AttentionBlock, ResBlock, UNet

WHOLE = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
RESAMPLED = {"op": "conv", "conv": "conv"}


def renamed(network: UNet) -> dict[str, Tensor]:
    """The state dict of the UNet2DModel that computes the same as `network`."""
    state = network.state_dict()
    found = {f"{new}.{kind}": state[f"{old}.{kind}"] for old, new in WHOLE.items() for kind in ("weight", "bias")}
    each = cast(int, network.flags["num_res_blocks"]) + 1
    for index, stage in enumerate(_stages(network.input_blocks)[1:]):
        level, place = divmod(index, each)
        if place == each - 1:
            found |= _block(stage[0], f"down_blocks.{level}.downsamplers.0")
        else:
            found |= _stage(stage, f"down_blocks.{level}", place)
    for index, stage in enumerate(_stages(network.output_blocks)):
        found |= _stage(stage, f"up_blocks.{index // each}", index % each)
    first, attention, second = network.middle_block
    found |= _block(first, "mid_block.resnets.0") | _attention(cast(AttentionBlock, attention), "mid_block.attentions.0")
    return found | _block(second, "mid_block.resnets.1")


def _stages(blocks: nn.ModuleList) -> list[nn.Sequential]:
    return list(cast(Iterable[nn.Sequential], blocks))


def _stage(stage: nn.Sequential, level: str, place: int) -> dict[str, Tensor]:
    """A residual block, perhaps attention, and perhaps what doubles the image."""
    found = _block(stage[0], f"{level}.resnets.{place}")
    for block in stage[1:]:
        if isinstance(block, AttentionBlock):
            found |= _attention(block, f"{level}.attentions.{place}")
        else:
            found |= _block(block, f"{level}.upsamplers.0")
    return found


def _block(block: nn.Module, name: str) -> dict[str, Tensor]:
    """A residual block, or a convolution that resamples."""
    names = RESIDUAL if isinstance(block, ResBlock) else RESAMPLED
    found = {}
    for key, tensor in block.state_dict().items():
        layer, _, kind = key.rpartition(".")
        found[f"{name}.{names[layer]}.{kind}"] = tensor
    return found


def _attention(block: AttentionBlock, name: str) -> dict[str, Tensor]:
    """The 1 x 1 convolution of q, k and v as three linear layers, the channels of a head side by side."""
    found = {f"{name}.group_norm.{kind}": tensor for kind, tensor in block.norm.state_dict().items()}
    found |= {f"{name}.to_out.0.{kind}": _flat(tensor) for kind, tensor in block.proj_out.state_dict().items()}
    for kind, tensor in block.qkv.state_dict().items():
        rows = _flat(tensor)
        heads = rows.view(*((3, block.heads) if block.new_attention_order else (block.heads, 3)), -1, *rows.shape[1:])
        parts = heads if block.new_attention_order else heads.transpose(0, 1)
        found |= {f"{name}.{part}.{kind}": parts[i].reshape(-1, *rows.shape[1:]) for i, part in enumerate(("to_q", "to_k", "to_v"))}
    return found


def _flat(tensor: Tensor) -> Tensor:
    """(out, in, 1) → (out, in); a bias as it is."""
    return tensor.squeeze(-1) if tensor.dim() == 3 else tensor
