"""prior=ddpm: a checkpoint of Ho et al. 2020 in PyTorch, as in pesser/pytorch_diffusion and SDEdit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_priors.diffusion.checkpoints import fitting
from diffusion_priors.diffusion.networks.ddpm import DDPMUNet
from diffusion_priors.diffusion.networks.shapes import published_size
from diffusion_priors.diffusion.preconditioning import Eps
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.kinds import OF_DDPM
from diffusion_priors.diffusion.schedules import Schedule
from diffusion_priors.runs.weights import read_state_dict

WHOLE = {
    "temb.dense.0": "time_embed.0",
    "temb.dense.1": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "norm_out": "out.0",
    "conv_out": "out.2",
}
RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "temb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "nin_shortcut": "skip_connection",
}
MIDDLE = {"block_1": "0", "attn_1": "1", "block_2": "2"}


def from_ddpm(path: str, schedule: Schedule, size: tuple[int, int] | None = None, clip: bool = True) -> Prior:
    """The prior in a checkpoint of DDPM: ε̂ of images in [-1, 1] by the index into `schedule`, linear in all that were published.

    Raises FileNotFoundError where there is none, ValueError where it is of another kind.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {path}; set prior.path to a checkpoint of DDPM")
    state = read_state_dict(Path(path))
    prefix = next((name.removesuffix(OF_DDPM) for name in state if name.endswith(OF_DDPM)), None)
    if prefix is None:
        raise ValueError(f"{path} holds no network of DDPM: its names begin with {', '.join(list(state)[:3])}")
    state = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    flags = ddpm_flags(state, size[0] if size else None)
    network = DDPMUNet(**flags)
    network.load_state_dict(fitting(network, renamed(state, flags["num_res_blocks"]), Path(path)))
    side = flags["image_size"]
    return Prior(network, schedule, Eps(), size or (side, side), flags["in_channels"], clip=clip)


def ddpm_flags(state: Mapping[str, Tensor], image_size: int | None = None) -> dict[str, Any]:
    """The arguments of DDPMUNet. Shapes do not show the size of the images: None takes that of the published network with these levels."""
    try:
        levels = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("down."))
        base = state[OF_DDPM].shape[1]
        mults = [state[f"down.{level}.block.0.conv1.weight"].shape[0] // base for level in range(levels)]
        given = state["conv_in.weight"].shape[1]
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"these are not the tensors of DDPM's network: {error}") from error
    image_size = image_size or published_size(mults)
    return {
        "image_size": image_size,
        "in_channels": given,
        "num_channels": base,
        "channel_mult": mults,
        "num_res_blocks": len({name.split(".")[3] for name in state if name.startswith("down.0.block.")}),
        "attention_resolutions": [image_size // 2**level for level in range(levels) if f"down.{level}.attn.0.q.weight" in state],
    }


def renamed(state: Mapping[str, Tensor], num_res_blocks: int) -> dict[str, Tensor]:
    """The tensors under the names of `networks.unet.UNet`; names that are none of DDPM's stay as they are, to be refused."""
    levels = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("down."))
    attended = {int(name.split(".")[1]) for name in state if name.startswith("up.") and ".attn." in name}
    found: dict[str, Tensor] = {}
    queries: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        layer, _, kind = name.rpartition(".")
        place, _, inner = _placed(layer, num_res_blocks + 1, levels, attended).partition("|")
        if inner in ("q", "k", "v"):
            queries.setdefault(f"{place}.qkv.{kind}", {})[inner] = tensor
        else:
            rows = tensor.squeeze(-1) if inner == "proj_out" and tensor.dim() == 4 else tensor
            found[".".join(filter(None, (place, RESIDUAL.get(inner, inner), kind)))] = rows
    for name, parts in queries.items():
        if len(parts) == 3:
            rows = torch.cat([parts["q"], parts["k"], parts["v"]])
            found[name] = rows.squeeze(-1) if rows.dim() == 4 else rows
    return found


def _placed(layer: str, each: int, levels: int, attended: set[int]) -> str:
    """ "down.1.block.0.conv1" → "input_blocks.4.0|conv1": the block here, and the layer inside it."""
    if layer in WHOLE:
        return WHOLE[layer]
    way = re.fullmatch(r"(down|up)\.(\d+)\.(block|attn|downsample|upsample)\.(?:(\d+)\.)?(\w+)", layer)
    middle = re.fullmatch(r"mid\.(\w+)\.(\w+)", layer)
    if middle and middle[1] in MIDDLE:
        return f"middle_block.{MIDDLE[middle[1]]}|{middle[2]}"
    if way is None:
        return layer
    side, level, part, index, inner = way[1], int(way[2]), way[3], int(way[4] or 0), way[5]
    if side == "down":
        block = 1 + level * each + (each - 1 if part == "downsample" else index)
        return f"input_blocks.{block}.{int(part == 'attn')}|{'op' if part == 'downsample' else inner}"
    block = (levels - 1 - level) * each + (each - 1 if part == "upsample" else index)
    if part == "upsample":
        return f"output_blocks.{block}.{1 + (level in attended)}|conv"
    return f"output_blocks.{block}.{int(part == 'attn')}|{inner}"
