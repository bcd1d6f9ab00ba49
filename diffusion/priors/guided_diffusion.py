"""A checkpoint of guided-diffusion's UNet, its flags read off its shapes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from diffusion_priors.diffusion.checkpoints import fitting
from diffusion_priors.diffusion.networks.shapes import is_guided_unet, unet_flags
from diffusion_priors.diffusion.networks.unet import UNet
from diffusion_priors.diffusion.preconditioning import Eps
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.schedules import Linear, Schedule
from diffusion_priors.runs.weights import read_state_dict


def from_guided_diffusion(
    path: str, schedule: Schedule | None = None, size: tuple[int, int] | None = None, num_head_channels: int = 64, clip: bool = True
) -> Prior:
    """The prior in a checkpoint of guided-diffusion: ε̂ of images in [-1, 1] on the linear schedule of 1000 steps, unless it is given.

    Raises FileNotFoundError where there is none, ValueError where it is not of this kind.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    state = read_state_dict(Path(path))
    prefix = _prefix(state)
    state = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    if not is_guided_unet(state):
        raise ValueError(f"{path} holds no network of guided-diffusion: its names begin with {', '.join(list(state)[:3])}")
    flags: dict[str, Any] = unet_flags(state, size[0] if size else None, num_head_channels)
    network = UNet(**flags)
    network.load_state_dict(fitting(network, state, Path(path)))
    side = flags["image_size"]
    return Prior(network, schedule or Linear(), Eps(), size or (side, side), flags["in_channels"], clip=clip)


def _prefix(state: Mapping[str, Tensor]) -> str:
    ends = [name.removesuffix("input_blocks.0.0.weight") for name in state if name.endswith("input_blocks.0.0.weight")]
    averaged = [prefix for prefix in ends if "ema" in prefix or "averag" in prefix]
    return (averaged or ends or [""])[0]
