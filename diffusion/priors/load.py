"""The prior in a file or folder, whatever kind it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from diffusion_priors.diffusion.preconditioning import Eps
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.ddpm import from_ddpm
from diffusion_priors.diffusion.priors.diffusers_pipeline import from_diffusers
from diffusion_priors.diffusion.priors.edm import from_edm
from diffusion_priors.diffusion.priors.folder import from_folder
from diffusion_priors.diffusion.priors.guided_diffusion import from_guided_diffusion
from diffusion_priors.diffusion.priors.hub import NAME
from diffusion_priors.diffusion.priors.inverse_bench import from_inverse_bench
from diffusion_priors.diffusion.priors.kinds import option_for
from diffusion_priors.diffusion.priors.lightning import from_lightning
from diffusion_priors.diffusion.priors.training import from_training
from diffusion_priors.diffusion.schedules import Linear

LOADERS: dict[str, Callable[..., Prior]] = {
    "folder": from_folder,
    "diffusers": from_diffusers,
    "training": from_training,
    "edm": from_edm,
    "guided_diffusion": from_guided_diffusion,
    "ddpm": lambda path, size: from_ddpm(path, Linear(), size),
    "inverse_bench": lambda path, size: from_inverse_bench(path, Linear(), size),
    "lightning": lambda path, size: from_lightning(path, Linear(), Eps(), size),
}
"""Option of conf/prior → what builds it from a path, with what is usual where the file does not say."""


def load_prior(path: str, size: tuple[int, int] | None = None) -> Prior:
    """The prior at `path`: a file, a folder, or owner/name on the hub. Raises what the loader of its kind raises."""
    option = option_for(Path(path)).name if Path(path).exists() or not NAME.fullmatch(path) else "diffusers"
    return LOADERS[option](path, size=size)
