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
    from diffusion_priors.api.parts import FACES, grid, load_prior, noise_model, operator, options, part, sampler, solver
    from diffusion_priors.api.restore import restore
    from diffusion_priors.api.result import Result

_HOMES = {
    "api.parts": ("FACES", "grid", "load_prior", "noise_model", "operator", "options", "part", "sampler", "solver"),
    "api.restore": ("restore",),
    "api.result": ("Result",),
}
"""Module → the public names that it brings. They are imported when they are first used: this import alone stays instant."""
_MODULES = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "FACES",
    "Result",
    "grid",
    "load_prior",
    "noise_model",
    "operator",
    "options",
    "part",
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
