"""The prior in a file or folder, whatever kind it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.diffusers_pipeline import from_diffusers
from diffusion_priors.diffusion.priors.folder import from_folder
from diffusion_priors.diffusion.priors.guided_diffusion import from_guided_diffusion
from diffusion_priors.diffusion.priors.kinds import option_for
from diffusion_priors.diffusion.priors.training import from_training

LOADERS: dict[str, Callable[..., Prior]] = {
    "folder": from_folder,
    "diffusers": from_diffusers,
    "training": from_training,
    "guided_diffusion": from_guided_diffusion,
}
"""Option of conf/prior → what builds it from a path."""


def load_prior(path: str, size: tuple[int, int] | None = None) -> Prior:
    """The prior at `path`, by the loader of its kind. Raises what the loader raises."""
    return LOADERS[option_for(Path(path)).name](path, size=size)
