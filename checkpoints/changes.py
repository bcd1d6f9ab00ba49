"""Mistakes that are made with checkpoints, each as a change of the prior that would correct it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from diffusion_priors.checkpoints.networks import Retimed, Reversed
from diffusion_priors.diffusion.preconditioning import EDM, X0, Eps, Flow, Preconditioning, Score, V
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.schedules import Betas, Cosine, Linear, Schedule

RANGES = ((-1.0, 1.0), (0.0, 1.0), (0.0, 255.0))
FEWEST_LINEAR = 20
"""Steps, of which 2e-2 times 1000/steps is no beta."""
MEANINGS: tuple[Preconditioning, ...] = (Eps(), V(), X0(), Score(), Flow(), EDM())


@dataclass(frozen=True)
class Change:
    """One setting and another value of it. `apply` gives the prior that has it."""

    setting: str
    value: str
    apply: Callable[[Prior], Prior]


def changes(prior: Prior) -> list[Change]:
    """Every other value, one at a time, of the settings that the weights themselves do not show."""
    found = [Change("schedule", name, _with(schedule=one)) for name, one in _schedules(prior)]
    found += [Change("output", one.name, _with(preconditioning=one)) for one in MEANINGS if one.name != prior.preconditioning.name]
    found += [Change("pixel range", _range(one), _with(pixel_range=one)) for one in RANGES if one != prior.pixel_range]
    if prior.channels == 3:
        found.append(Change("channels", "BGR", lambda prior: prior.with_network(Reversed(prior.network))))
    return found + [Change("index", f"t · {factor:g}", _retimed(factor)) for factor in _factors(prior)]


def settings(prior: Prior) -> dict[str, str]:
    """What `prior` says of each setting."""
    return {
        "schedule": _named(prior.schedule),
        "output": prior.preconditioning.name,
        "pixel range": _range(prior.pixel_range),
        "channels": "RGB" if prior.channels == 3 else "grey",
        "index": "t · 1000/T" if prior.rescale_timesteps else "t",
    }


def _with(
    schedule: Schedule | None = None, preconditioning: Preconditioning | None = None, pixel_range: tuple[float, float] | None = None
) -> Callable[[Prior], Prior]:
    def apply(prior: Prior) -> Prior:
        chosen = schedule or prior.schedule
        return Prior(
            prior.network,
            chosen,
            preconditioning or prior.preconditioning,
            prior.size,
            prior.channels,
            pixel_range or prior.pixel_range,
            clip=prior.clip,
            rescale_timesteps=prior.rescale_timesteps and chosen.table is not None,
        )

    return apply


def _retimed(factor: float) -> Callable[[Prior], Prior]:
    return lambda prior: prior.with_network(Retimed(prior.network, factor))


def _schedules(prior: Prior) -> list[tuple[str, Schedule]]:
    """The usual schedules of as many steps, and of a thousand, without the prior's own."""
    table = prior.schedule.table
    lengths = dict.fromkeys([len(table) if table else 1000, 1000])
    known: list[Schedule] = [Cosine(steps) for steps in lengths]
    known += [Linear(steps) for steps in lengths if steps > FEWEST_LINEAR]
    known.append(Betas([(0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * i / 999) ** 2 for i in range(1000)]))
    return [(_named(one), one) for one in known if one.table != table]


def _factors(prior: Prior) -> list[float]:
    """What an index may have been multiplied by before it is fed."""
    table = prior.schedule.table
    if table is None:
        return []
    factor = 1000.0 / len(table)
    return [1.0 / len(table), *([] if factor == 1.0 else [1.0 / factor if prior.rescale_timesteps else factor])]


def _named(schedule: Schedule) -> str:
    described = {key: value for key, value in schedule.describe().items() if key != "betas"}
    if isinstance(schedule, Betas) and schedule.kind == "betas":
        return f"betas from {schedule.betas[0]:g} to {schedule.betas[-1]:g}, {len(schedule.table)} steps"
    return ", ".join([str(described.pop("kind")), *(f"{key}={value:g}" for key, value in described.items())])


def _range(pixel_range: tuple[float, float]) -> str:
    return f"[{pixel_range[0]:g}, {pixel_range[1]:g}]"
