"""scheduler_config.json of diffusers: the schedule that a network was trained on, and what its output means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import exp
from typing import Any, NamedTuple

from diffusion_priors.diffusion.preconditioning import X0, Eps, Preconditioning, Score, V
from diffusion_priors.diffusion.schedules import VE, Betas, Cosine, Linear, Schedule
from diffusion_priors.runs.values import check_value, shown

VARIANCE_EXPLODING = "ScoreSdeVeScheduler"
SUPPORTED = (
    "DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler",
    "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler",
)  # fmt: skip
"""Samplers of one and the same training on betas; their configurations have the same keys for it."""


class Training(NamedTuple):
    """How a network was trained, as the configuration of its scheduler says. `clip` is whether diffusers clamps x̂0."""

    schedule: Schedule
    preconditioning: Preconditioning
    pixel_range: tuple[float, float]
    clip: bool
    learned_variance: bool


def read_scheduler(config: Mapping[str, Any]) -> Training:
    """The training that a scheduler's configuration describes.

    Raises ValueError for a scheduler, a schedule or a prediction type that is not supported, and for values out of bounds.
    """
    kind = config.get("_class_name")
    if kind == VARIANCE_EXPLODING:
        low, high = (_number(config, key, default) for key, default in (("sigma_min", 0.01), ("sigma_max", 1348.0)))
        return Training(VE(low, high), Score(), (0.0, 1.0), clip=False, learned_variance=False)
    if kind not in SUPPORTED:
        raise ValueError(f"the scheduler {shown(kind)} is not supported; known here: {', '.join((*SUPPORTED, VARIANCE_EXPLODING))}")
    meanings = {"epsilon": Eps, "v_prediction": V, "sample": X0}
    meaning = config.get("prediction_type", "epsilon")
    if meaning not in meanings:
        raise ValueError(f"prediction_type={shown(meaning)} is unknown; known here: {', '.join(meanings)}")
    learned = config.get("variance_type") == "learned_range"
    return Training(_betas(config), meanings[meaning](), (-1.0, 1.0), _clips(config, kind), learned)


def _clips(config: Mapping[str, Any], kind: str) -> bool:
    if config.get("thresholding", False):
        raise ValueError("thresholding=true clamps to a percentile of each image, which no prior here does; set it to false")
    clips = config.get("clip_sample", kind in ("DDPMScheduler", "DDIMScheduler"))
    if clips and config.get("clip_sample_range", 1.0) != 1.0:
        raise ValueError(f"clip_sample_range={shown(config['clip_sample_range'])} is not supported: x̂0 is clamped to [-1, 1] or not at all")
    return bool(clips)


def _betas(config: Mapping[str, Any]) -> Schedule:
    if config.get("rescale_betas_zero_snr", False):
        raise ValueError("rescale_betas_zero_snr=true ends in a level without signal, which a schedule of betas here does not have")
    total = config.get("num_train_timesteps", 1000)
    check_value("num_train_timesteps", total, int)
    given = config.get("trained_betas")
    if given is not None:
        check_value("trained_betas", given, list[float])
        if len(given) != total:
            raise ValueError(f"trained_betas has {len(given)} values and num_train_timesteps is {total}: they contradict each other")
        return Betas([float(beta) for beta in given])
    start, end = _number(config, "beta_start", 1e-4), _number(config, "beta_end", 0.02)
    kinds: dict[str, Callable[[], Schedule]] = {
        "linear": lambda: Linear(total, start, end),
        "scaled_linear": lambda: Betas([root**2 for root in _spaced(start**0.5, end**0.5, total)]),
        "squaredcos_cap_v2": lambda: Cosine(total),
        "sigmoid": lambda: Betas([(end - start) / (1.0 + exp(-x)) + start for x in _spaced(-6.0, 6.0, total)]),
    }
    name = config.get("beta_schedule", "linear")
    if name not in kinds:
        raise ValueError(f"beta_schedule={shown(name)} is unknown; known here: {', '.join(kinds)}")
    return kinds[name]()


def _number(config: Mapping[str, Any], key: str, default: float) -> float:
    value = config.get(key, default)
    check_value(key, value, float)
    return float(value)


def _spaced(start: float, end: float, total: int) -> list[float]:
    return [start + (end - start) * i / max(total - 1, 1) for i in range(total)]
