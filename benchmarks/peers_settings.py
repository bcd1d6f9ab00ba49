"""What benchmarks/peers_quality.py compares: tasks, methods, and the settings that each side may choose from.

Ours are overrides of evaluate.py. Both sides have the same number of settings for a method, and may walk the same levels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from diffusion_priors.diffusion.grids import Karras

SIDES = ("deepinv", "ours")
TASKS = {
    "box": ("operator=inpaint_box",),
    "blur": ("operator=deblur_gaussian", "operator.boundary=circular"),
    "mask": ("operator=inpaint_random",),
    "sr4": ("operator=super_resolution",),
}
TUNED_ON = {"box": "box", "mask": "box", "blur": "blur", "sr4": "blur"}
"""The task whose best settings a task takes."""

KARRAS = "grid=karras grid.rho=2 grid.largest=20 grid.smallest=0.05"
"""Levels without the very noisy and the nearly clean ones. `karras` is the same for DeepInverse."""
RENOISE = "sampler=renoise sampler.zeta=1.0"
"""The sampler that keeps x̃0 and draws all noise anew."""
karras = partial(Karras, rho=2.0, largest=20.0, smallest=0.05)


def _overrides(*settings: str) -> dict[str, tuple[str, ...]]:
    return {setting: tuple(setting.split()) for setting in settings}


OURS = {
    "ddrm": _overrides(
        "solver=ddrm grid.steps=20",
        "solver=ddrm grid.steps=100",
        "solver=ddrm grid.steps=100 grid=karras grid.rho=1 grid.largest=2 grid.smallest=0.02 solver.eta=0.95",
        f"solver=ddrm grid.steps=20 {KARRAS}",
        f"solver=ddrm grid.steps=20 {KARRAS} solver.eta=1.0",
        f"solver=ddrm grid.steps=100 {KARRAS} solver.cutoff=0.5",
    ),
    "diffpir": _overrides(
        "solver=diffpir grid.steps=100 solver.lam=7.0",
        f"solver=diffpir grid.steps=100 {KARRAS} sampler.zeta=1.0",
        f"solver=diffpir grid.steps=100 {KARRAS} sampler.zeta=1.0 solver.lam=1.0",
    ),
    "pigdm": _overrides(
        f"solver=pigdm grid.steps=100 {KARRAS} solver.prior_variance=4.0",
        f"solver=pigdm grid.steps=100 {KARRAS} solver.prior_variance=4.0 {RENOISE}",
    ),
    "dps": _overrides(
        f"solver=dps grid.steps=100 {KARRAS} solver.zeta=0.5",
        f"solver=dps grid.steps=100 {KARRAS} {RENOISE}",
        f"solver=dps grid.steps=100 {KARRAS} {RENOISE} solver.zeta=0.5",
    ),
    "mmps": _overrides(
        f"solver=mmps grid.steps=100 {KARRAS} {RENOISE}",
        f"solver=mmps grid.steps=100 {KARRAS} solver.iterations=3",
    ),
}
EXTRAS = {
    "ddnm_plus": _overrides("solver=ddnm_plus grid.steps=100"),
    "dds": _overrides("solver=dds grid.steps=100"),
    "daps": _overrides("solver=daps grid=karras grid.steps=20"),
}


def _ddrm(**settings: Any) -> Callable:
    import deepinverse

    return deepinverse.ddrm(**settings)


def _ddrm_on(*grid: Any, **settings: Any) -> Callable:
    import deepinverse

    return deepinverse.ddrm(sigmas=lambda peer, steps: deepinverse.our_sigmas(peer, steps, *grid), **settings)


def _diffpir(**settings: Any) -> Callable:
    import deepinverse

    return deepinverse.diffpir(**settings)


def _guided(fidelity: str, settings: dict[str, Any] | None = None, **walk: Any) -> Callable:
    import deepinv
    import deepinverse

    return deepinverse.guided(partial(getattr(deepinv.sampling, fidelity), **(settings or {})), **walk)


def _dps(weight: float, **walk: Any) -> Callable:
    return _guided("DPSDataFidelity", {"weight": weight, "clip": (-1.0, 1.0)}, **walk)


def _mmps(iterations: int, **walk: Any) -> Callable:
    return _guided("MomentMatchingDataFidelity", {"cg_max_iter": iterations}, **walk)


THEIRS: dict[str, dict[str, Callable[[], Callable]]] = {
    "ddrm": {
        "20 steps": partial(_ddrm, steps=20),
        "100 steps": partial(_ddrm, steps=100),
        "20 steps on the levels of the prior": partial(_ddrm_on, steps=20),
        "20 steps on Karras' levels": partial(_ddrm_on, karras, steps=20),
        "20 steps on Karras' levels, eta=1": partial(_ddrm_on, karras, steps=20, eta=1.0),
        "100 steps on Karras' levels": partial(_ddrm_on, karras, steps=100),
    },
    "diffpir": {
        "lambda_=7 zeta=0.1": _diffpir,
        "lambda_=7 zeta=1": partial(_diffpir, lam=7.0, zeta=1.0),
        "lambda_=2 zeta=1": partial(_diffpir, lam=2.0, zeta=1.0),
    },
    "pigdm": {
        "DDPM": partial(_guided, "PiGDMDataFidelity"),
        "DDPM on Karras' levels": partial(_guided, "PiGDMDataFidelity", grid=karras),
    },
    "dps": {
        "weight=100": partial(_dps, 100.0),
        "weight=100 on Karras' levels": partial(_dps, 100.0, grid=karras),
        "weight=300 on Karras' levels": partial(_dps, 300.0, grid=karras),
    },
    "mmps": {
        "cg_max_iter=1 on Karras' levels": partial(_mmps, 1, grid=karras),
        "cg_max_iter=3 on Karras' levels": partial(_mmps, 3, grid=karras),
    },
}
