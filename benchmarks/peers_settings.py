"""What benchmarks/peers_quality.py compares: tasks, methods, and the settings that each side may choose from.

Ours are overrides of evaluate.py. Both sides have the same number of settings for a method.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

TASKS = {
    "box": ("operator=inpaint_box",),
    "blur": ("operator=deblur_gaussian", "operator.boundary=circular"),
    "mask": ("operator=inpaint_random",),
    "sr4": ("operator=super_resolution",),
}
TUNED_ON = {"box": "box", "mask": "box", "blur": "blur", "sr4": "blur"}
"""The task whose best settings a task takes."""
METHODS = ("ddrm", "diffpir", "pigdm", "dps", "mmps")


def _overrides(*settings: str) -> dict[str, tuple[str, ...]]:
    return {setting: tuple(setting.split()) for setting in settings}


OURS = {
    "ddrm": _overrides("solver=ddrm grid.steps=20", "solver=ddrm grid.steps=100", "solver=ddrm grid.steps=20 solver.eta=0.7"),
    "diffpir": _overrides(
        "solver=diffpir grid.steps=100",
        "solver=diffpir grid.steps=100 solver.lam=3.5 sampler.zeta=0.5",
        "solver=diffpir grid.steps=100 solver.lam=1.0 sampler.zeta=1.0",
    ),
    "pigdm": _overrides("solver=pigdm grid.steps=100", "solver=pigdm grid.steps=100 sampler=ddim"),
    "mmps": _overrides("solver=mmps grid.steps=100", "solver=mmps grid.steps=100 solver.iterations=3"),
    "dps": _overrides(
        "solver=dps grid.steps=100 solver.zeta=0.15",
        "solver=dps grid.steps=100 solver.zeta=0.3",
        "solver=dps grid.steps=100 solver.zeta=0.6",
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


def _ddrm_on_our_levels(**settings: Any) -> Callable:
    import deepinverse

    return deepinverse.ddrm(sigmas=deepinverse.our_sigmas, **settings)


def _diffpir(**settings: Any) -> Callable:
    import deepinverse

    return deepinverse.diffpir(**settings)


def _guided(fidelity: str, eta: float = 1.0, **settings: Any) -> Callable:
    import deepinv
    import deepinverse

    return deepinverse.guided(partial(getattr(deepinv.sampling, fidelity), **settings), eta=eta)


THEIRS: dict[str, dict[str, Callable[[], Callable]]] = {
    "ddrm": {
        "20 steps": partial(_ddrm, steps=20),
        "100 steps": partial(_ddrm, steps=100),
        "20 steps on the levels of the prior": partial(_ddrm_on_our_levels, steps=20),
    },
    "diffpir": {
        "lambda_=7 zeta=0.1": _diffpir,
        "lambda_=7 zeta=0.5": partial(_diffpir, lam=7.0, zeta=0.5),
        "lambda_=2 zeta=1": partial(_diffpir, lam=2.0, zeta=1.0),
    },
    "pigdm": {"DDPM": partial(_guided, "PiGDMDataFidelity"), "DDIM": partial(_guided, "PiGDMDataFidelity", eta=0.0)},
    "mmps": {
        "cg_max_iter=1": partial(_guided, "MomentMatchingDataFidelity", cg_max_iter=1),
        "cg_max_iter=3": partial(_guided, "MomentMatchingDataFidelity", cg_max_iter=3),
    },
    "dps": {
        "weight=30": partial(_guided, "DPSDataFidelity", weight=30.0, clip=(-1.0, 1.0)),
        "weight=100": partial(_guided, "DPSDataFidelity", weight=100.0, clip=(-1.0, 1.0)),
        "weight=300": partial(_guided, "DPSDataFidelity", weight=300.0, clip=(-1.0, 1.0)),
    },
}
