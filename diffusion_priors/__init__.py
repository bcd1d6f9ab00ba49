"""Solve image inverse problems with diffusion priors.

    import diffusion_priors as dp

    prior = dp.load_prior("faces64")
    result = dp.restore(prior, image="photo.jpg", operator="inpaint_box", solver="dps", seed=0)
    result.figure()

Every import of the project starts here: `diffusion_priors.solvers.dps`. The packages are the top-level folders of the
repository. In a checkout they are links in this folder, so that Python, editors and type checkers all find them under this one
name; in an installed wheel they are ordinary folders.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusion_priors.api.deepinverse import deepinv_denoiser, deepinv_physics, operator_from_deepinv
    from diffusion_priors.api.parts import FACES, grid, inpainting, load_prior, noise_model, operator, options, part, sampler, solver
    from diffusion_priors.api.restore import restore
    from diffusion_priors.api.result import Result
    from diffusion_priors.diffusion.deepinverse import prior_from_deepinv
    from diffusion_priors.diffusion.denoiser import Denoiser
    from diffusion_priors.diffusion.image_random import ImageRandom, image_generator
    from diffusion_priors.diffusion.priors.base import Prior
    from diffusion_priors.operators.base import Operator
    from diffusion_priors.operators.linear import LinearOperator
    from diffusion_priors.operators.measurement import Measurement
    from diffusion_priors.operators.noise_models import NoiseModel
    from diffusion_priors.solvers.base import Guided, Problem, Solver

_HOMES = {
    "api.deepinverse": (
        "deepinv_denoiser",
        "deepinv_physics",
        "operator_from_deepinv",
    ),
    "api.parts": (
        "FACES",
        "grid",
        "inpainting",
        "load_prior",
        "noise_model",
        "operator",
        "options",
        "part",
        "sampler",
        "solver",
    ),
    "api.restore": ("restore",),
    "api.result": ("Result",),
    "diffusion.deepinverse": ("prior_from_deepinv",),
    "diffusion.denoiser": ("Denoiser",),
    "diffusion.image_random": (
        "ImageRandom",
        "image_generator",
    ),
    "diffusion.priors.base": ("Prior",),
    "operators.base": ("Operator",),
    "operators.linear": ("LinearOperator",),
    "operators.measurement": ("Measurement",),
    "operators.noise_models": ("NoiseModel",),
    "solvers.base": (
        "Guided",
        "Problem",
        "Solver",
    ),
}
"""Module → the public names that it brings. They are imported when they are first used: this import alone stays instant."""
_MODULES = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "FACES",
    "Denoiser",
    "Guided",
    "ImageRandom",
    "LinearOperator",
    "Measurement",
    "NoiseModel",
    "Operator",
    "Prior",
    "Problem",
    "Result",
    "Solver",
    "deepinv_denoiser",
    "deepinv_physics",
    "grid",
    "image_generator",
    "inpainting",
    "load_prior",
    "noise_model",
    "operator",
    "operator_from_deepinv",
    "options",
    "part",
    "prior_from_deepinv",
    "restore",
    "sampler",
    "solver",
]

_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "pyproject.toml").is_file():  # a checkout without symbolic links, as on Windows: the folders stand one level up
    __path__.insert(0, str(_ROOT))


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
