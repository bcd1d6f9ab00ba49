"""A network of guided-diffusion, DDPM or EDM among the tensors of a file, under whatever prefix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from diffusion_priors.diffusion.checkpoints import fitting
from diffusion_priors.diffusion.networks.ddpm import DDPMUNet
from diffusion_priors.diffusion.networks.edm_shapes import FIRST as FIRST_OF_EDM
from diffusion_priors.diffusion.networks.edm_shapes import edm_flags, edm_network
from diffusion_priors.diffusion.networks.shapes import unet_flags
from diffusion_priors.diffusion.networks.unet import UNet
from diffusion_priors.diffusion.priors.ddpm import ddpm_flags, renamed
from diffusion_priors.diffusion.priors.kinds import OF_DDPM, OF_GUIDED

AVERAGED = ("ema", "averag", "shadow")


def recognised(state: Mapping[str, Tensor], source: Path, image_size: int | None, num_head_channels: int) -> tuple[Any, int]:
    """The network in `state` with its weights, and the side of its images. Averaged weights come first where it is there twice.

    Raises ValueError where no network is recognised, or several.
    """
    prefix, build = _found(state, source)
    own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    network, tensors = build(own, image_size, num_head_channels)
    network.load_state_dict(fitting(network, tensors, source))
    return network, network.flags["image_size"]


Build = Callable[[dict[str, Tensor], int | None, int], tuple[Any, dict[str, Tensor]]]


def _guided(state: dict[str, Tensor], image_size: int | None, head: int) -> tuple[Any, dict[str, Tensor]]:
    return UNet(**unet_flags(state, image_size, head)), state


def _ddpm(state: dict[str, Tensor], image_size: int | None, head: int) -> tuple[Any, dict[str, Tensor]]:
    flags = ddpm_flags(state, image_size)
    return DDPMUNet(**flags), renamed(state, flags["num_res_blocks"])


def _edm(state: dict[str, Tensor], image_size: int | None, head: int) -> tuple[Any, dict[str, Tensor]]:
    return edm_network(state)(**edm_flags(state)), state


def _found(state: Mapping[str, Tensor], source: Path) -> tuple[str, Build]:
    """What the names of the network begin with, and what builds it."""
    places: dict[str, Build] = {}
    for name in state:
        for first, build in ((OF_GUIDED, _guided), (OF_DDPM, _ddpm)):
            if name == first or name.endswith(f".{first}"):
                places[name.removesuffix(first)] = build
        found = FIRST_OF_EDM.search(name)
        if found and (found.start() == 0 or name[found.start() - 1] == ".") and found.end() == len(name):
            places[name[: found.start()]] = _edm
    averaged = [prefix for prefix in places if any(word in prefix for word in AVERAGED)]
    chosen = averaged or list(places)
    if len(chosen) != 1:
        what = f"{len(chosen)} networks, under {' and '.join(chosen)}" if chosen else "no network of guided-diffusion, DDPM or EDM"
        raise ValueError(f"{source} holds {what}; its names begin with {', '.join(list(state)[:3])}; save one network on its own")
    return chosen[0], places[chosen[0]]
