"""The bundled prior, and the parts that a command of the project would build, for the benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import hydra
import torch
from hydra.utils import instantiate

from diffusion_priors.diffusion.grids import Grid
from diffusion_priors.diffusion.networks.unet import UNet
from diffusion_priors.diffusion.preconditioning import Eps
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.folder import from_folder
from diffusion_priors.diffusion.samplers import Sampler
from diffusion_priors.diffusion.schedules import Linear
from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.noise_models import NoiseModel
from diffusion_priors.solvers.base import Solver

ROOT = Path(__file__).resolve().parent.parent
SOLVERS = sorted(path.stem for path in (ROOT / "conf" / "solver").glob("*.yaml"))


class Configured(NamedTuple):
    """What evaluate.py builds for a method."""

    solver: Solver
    operator: Operator
    noise_model: NoiseModel
    sampler: Sampler
    grid: Grid


def configured(*overrides: str) -> Configured:
    """The objects of `python evaluate.py OVERRIDES`."""
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config: Any = hydra.compose("evaluate", overrides=list(overrides))
    return Configured(*(instantiate(config[key], _convert_="all") for key in Configured._fields))


def faces64() -> Prior:
    return from_folder(str(ROOT / "diffusion" / "weights" / "faces64"))


def random_prior(**flags: object) -> Prior:
    """A network for images of 64 x 64, every weight random; by default that of ffhq_10m.pt."""
    torch.manual_seed(0)
    network = UNet(**flags)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1 and not parameter.any():
                parameter.normal_(std=0.02)
    return Prior(network, Linear(), Eps(), size=(64, 64))
