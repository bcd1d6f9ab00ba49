"""A checkpoint of guided-diffusion's UNet, its flags read off its shapes."""

from __future__ import annotations

from pathlib import Path

from diffusion_priors.diffusion.preconditioning import Eps
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.recognised import recognised
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
    network, side = recognised(read_state_dict(Path(path)), Path(path), size[0] if size else None, num_head_channels)
    return Prior(network, schedule or Linear(), Eps(), size or (side, side), network.flags["in_channels"], clip=clip)
