"""prior=lightning: a checkpoint that PyTorch Lightning saved in another project."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from diffusion_priors.diffusion.preconditioning import Preconditioning
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.recognised import recognised
from diffusion_priors.diffusion.schedules import Schedule
from diffusion_priors.runs.weights import read_checkpoint


def from_lightning(
    path: str,
    schedule: Schedule,
    preconditioning: Preconditioning,
    size: tuple[int, int] | None = None,
    pixel_range: tuple[float, float] = (-1.0, 1.0),
    num_head_channels: int = 64,
    clip: bool = True,
) -> Prior:
    """The prior in a checkpoint of Lightning: a network whose tensors have the names of guided-diffusion, DDPM or EDM.

    The file does not say how it was trained: `schedule`, `preconditioning` and `pixel_range` do. Averaged weights come first.

    Raises FileNotFoundError where there is none, ValueError where no network is recognised in it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {path}; set prior.path to a checkpoint of Lightning")
    state = read_checkpoint(Path(path)).get("state_dict")
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} has no entry state_dict with tensors, so it is no checkpoint of Lightning")
    network, side = recognised(state, Path(path), size[0] if size else None, num_head_channels)
    return Prior(network, schedule, preconditioning, size or (side, side), network.flags["in_channels"], pixel_range, clip)
