"""The parts of a method by name: dp.solver("dps", zeta=0.3), with the names and settings of conf/."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from torch import Tensor

from diffusion_priors.conf import PROJECT
from diffusion_priors.conf.groups import options as options_of
from diffusion_priors.conf.named import named, prior_from
from diffusion_priors.diffusion.grids import Grid
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.hub import path_or_hub
from diffusion_priors.diffusion.samplers import Sampler
from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.masks import Given
from diffusion_priors.operators.noise_models import NoiseModel
from diffusion_priors.solvers.base import Solver
from diffusion_priors.solvers.method import Method

FACES = tuple(str(path) for path in sorted((PROJECT / "examples" / "faces").glob("*.png")))
"""The paths of the bundled example faces."""
KINDS = get_type_hints(Method)
"""Group → the class of its parts. The parts of other groups are compared where they are used."""


def options(group: str) -> list[str]:
    """The names that a group has: options("solver") → ["adam_dps", …]. Raises ValueError where there is no such group."""
    found = options_of(group)
    if not found:
        groups = sorted(path.name for path in (PROJECT / "conf").iterdir() if path.is_dir() and any(path.glob("*.yaml")))
        raise ValueError(f"there is no group {group!r}; choose one of {', '.join(groups)}")
    return found


def part(group: str, name: str, /, **settings: Any) -> Any:
    """The part that conf/`group`/`name`.yaml describes, with `settings` in place of its values.

    A setting is a plain value, a dictionary for a part inside this one, the name of an option where that part has a group of
    its own (part("solver", "daps", inner="hmc")), or a built object. Raises ValueError, in one line, for what does not fit.
    """
    return named(group, name, settings, KINDS.get(group, Any))


def load_prior(name: str | os.PathLike[str] = "faces64", /, **settings: Any) -> Prior:
    """The prior of that name in conf/prior, in the file or folder of that path, or of that name on the hub ("owner/name").

    What is on the hub is fetched once, and found in the cache of huggingface_hub without a network.

    Raises ValueError, FileNotFoundError or OSError, in one line, where there is none and for settings that do not fit.
    """
    text = os.fspath(name)
    if text in options_of("prior"):
        return part("prior", text, **settings)
    if not Path(text).exists() and "/" not in text:
        raise ValueError(f"prior={text!r} is neither a name nor a path that exists; choose one of {', '.join(options_of('prior'))}")
    return prior_from(path_or_hub(text), settings)


def solver(name: str, /, **settings: Any) -> Solver:
    """The solver conf/solver/`name`.yaml: solver("dps", zeta=0.3). Raises ValueError for what does not fit."""
    return part("solver", name, **settings)


def operator(name: str, /, **settings: Any) -> Operator:
    """The operator conf/operator/`name`.yaml: operator("inpaint_box", size=(20, 20)). Raises ValueError for what does not fit."""
    return part("operator", name, **settings)


def inpainting(mask: Tensor | np.ndarray) -> Operator:
    """The operator of a mask in memory, (H, W) of the prior's size: True, or a number that is not 0, where a pixel is known.

    operator("inpaint_mask", path=FILE) reads one from an image. Raises ValueError for another shape.
    """
    return Given(mask)


def noise_model(name: str, /, **settings: Any) -> NoiseModel:
    """The noise model conf/noise_model/`name`.yaml: noise_model("gaussian", sigma=0.1). Raises ValueError for what does not fit."""
    return part("noise_model", name, **settings)


def sampler(name: str, /, **settings: Any) -> Sampler:
    """The sampler conf/sampler/`name`.yaml: sampler("ddim", eta=0.5). Raises ValueError for what does not fit."""
    return part("sampler", name, **settings)


def grid(name: str, /, **settings: Any) -> Grid:
    """The grid conf/grid/`name`.yaml: grid("karras", steps=50). Raises ValueError for what does not fit."""
    return part("grid", name, **settings)
