"""The network of Karras et al. that a state dict belongs to, and its flags, read off the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from diffusion_priors.diffusion.networks.edm import DhariwalUNet, SongUNet

FIRST = re.compile(r"enc\.(\d+)x\d+_conv\.weight")


def is_edm(state: Mapping[str, Tensor]) -> bool:
    return any(FIRST.fullmatch(name) for name in state)


def edm_network(state: Mapping[str, Tensor]) -> type[nn.Module]:
    """SongUNet or DhariwalUNet. Raises ValueError for variants that no published network has."""
    if "map_label.weight" in state:
        raise ValueError("the network is class-conditional (map_label.weight): its score is of one class; use an unconditional checkpoint")
    if any("_aux_skip" in name or "_aux_up" in name for name in state):
        raise ValueError("an encoder or decoder of the kind 'skip' is not supported; standard and residual encoders are")
    return DhariwalUNet if "out_norm.weight" in state else SongUNet


def edm_flags(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of that network. Raises ValueError where a tensor of it is missing."""
    try:
        return _flags(state, edm_network(state) is SongUNet)
    except (KeyError, IndexError, StopIteration, ZeroDivisionError) as error:
        raise ValueError(f"these are not the tensors of a network of EDM: {error} is not among them") from error


def _flags(state: Mapping[str, Tensor], song: bool) -> dict[str, Any]:
    side, first = next((int(found[1]), state[name]) for name in state if (found := FIRST.fullmatch(name)))
    sides = sorted({int(name.split(".")[1].split("x")[0]) for name in state if name.startswith("enc.")}, reverse=True)
    noise, embedding = state["map_layer0.weight"].shape[1], state["map_layer0.weight"].shape[0]
    base = first.shape[0] if song else noise
    flags: dict[str, Any] = {
        "image_size": side,
        "in_channels": first.shape[1],
        "model_channels": base,
        "channel_mult": [state[f"enc.{at}x{at}_block0.conv0.weight"].shape[0] // base for at in sides],
        "channel_mult_emb": embedding // base,
        "num_blocks": len({name.split(".")[1] for name in state if name.startswith(f"enc.{side}x{side}_block")}),
        "attention_resolutions": [at for at in sides if f"enc.{at}x{at}_block0.qkv.weight" in state],
        "augment_dim": state["map_augment.weight"].shape[1] if "map_augment.weight" in state else 0,
    }
    if not song:
        return flags
    filters = [tensor for name, tensor in state.items() if name.endswith("resample_filter")]
    taps = (filters[0][0, 0, 0] / filters[0][0, 0, 0, 0]).round().int().tolist() if filters else [1, 1]
    return flags | {
        "channel_mult_noise": noise // base,
        "fourier": "map_noise.freqs" in state,
        "residual_encoder": any("_aux_residual" in name for name in state),
        "resample_filter": taps,
    }
