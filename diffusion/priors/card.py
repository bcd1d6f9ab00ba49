"""A prior's card: plain values that say what the shapes of its weights cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_priors.diffusion import networks, preconditioning, schedules
from diffusion_priors.diffusion.checkpoints import fitting
from diffusion_priors.diffusion.preconditioning import Preconditioning
from diffusion_priors.diffusion.priors.base import Prior, checked_size
from diffusion_priors.diffusion.schedules import Schedule
from diffusion_priors.runs.printable import printable
from diffusion_priors.runs.values import check_arguments, check_value, shown

KEYS = {
    "network": dict,
    "schedule": dict,
    "preconditioning": str | dict,
    "size": tuple[int, int],
    "pixel_range": tuple[float, float],
}
"""What a card must say, and what kind of value says it. `channels` and `rescale_timesteps` may be left out; all else in a card is for
readers."""


def from_card(
    card: object, source: Path, size: tuple[int, int] | None, clip: bool, weights: Callable[[], tuple[Mapping[str, Tensor], Path]]
) -> Prior:
    """The prior that a card describes. `weights` reads the tensors of its network and says from where.

    The network is first built without memory and compared with the weights: a card that asks for a network of billions of
    weights costs nothing unless they are there.

    Raises ValueError for what is no card, and for values out of bounds. A card comes from whoever made the weights: it chooses
    among the project's classes, and no value of it is more than a number, a list of numbers or a name.
    """
    try:
        card = _checked(card)
        with torch.device("meta"):
            prior = _built(card, clip)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{source} is no prior card: {printable(str(error), 300)}") from error
    if size is not None:
        prior.size = checked_size(size)
    state = fitting(prior.network, *weights())
    prior.network = _network(card)
    prior.network.load_state_dict(state)
    return prior


def _checked(card: object) -> dict:
    if not isinstance(card, dict):
        raise ValueError(f"it holds {shown(card)} instead of keys and values")
    for key, kind in KEYS.items():
        if key not in card:
            raise ValueError(f"{key} is missing")
        check_value(key, card[key], kind)
    check_value("channels", card.get("channels", 3), int)
    check_value("rescale_timesteps", card.get("rescale_timesteps", False), bool)
    if "class" in card["network"]:
        raise ValueError(
            f"its network is of the class {shown(card['network']['class'])}, which is no part of this project, and no file decides "
            "which code is run; use prior=custom with the class of a network that you trust"
        )
    return card


def _built(card: dict, clip: bool) -> Prior:
    meaning = card["preconditioning"]
    return Prior(
        network=_network(card),
        schedule=_part(schedules, Schedule, "kind", card["schedule"], "schedule"),
        preconditioning=_part(
            preconditioning, Preconditioning, "name", {"name": meaning} if isinstance(meaning, str) else meaning, "preconditioning"
        ),
        size=tuple(card["size"]),
        channels=card.get("channels", 3),
        pixel_range=tuple(card["pixel_range"]),
        clip=clip,
        rescale_timesteps=card.get("rescale_timesteps", False),
    )


def _network(card: dict) -> nn.Module:
    return _part(networks, nn.Module, "kind", {"kind": "unet"} | card["network"], "network")


def _part(module: ModuleType, base: type, attribute: str, given: dict, name: str) -> Any:
    """The part of a prior that `given` describes: its class by `attribute`, and the arguments of that class."""
    if attribute not in given:
        raise ValueError(f"{name}.{attribute} is missing")
    kind = named(module, base, attribute, given[attribute])
    arguments = {key: value for key, value in given.items() if key != attribute}
    check_arguments(arguments, kind, name)
    return kind(**arguments)


def named(module: ModuleType, base: type, attribute: str, name: str) -> type:
    """The class of `module` (a file, or a folder of files) below `base` whose `attribute` is `name`.

    A card chooses among the project's classes and no others.

    Raises ValueError for any other name.
    """
    files = [import_module(f"{module.__name__}.{file.name}") for file in iter_modules(getattr(module, "__path__", []))]
    kinds = {
        getattr(kind, attribute): kind
        for file in (module, *files)
        for kind in vars(file).values()
        if isinstance(kind, type) and issubclass(kind, base) and attribute in vars(kind)
    }
    if not isinstance(name, str) or name not in kinds:
        raise ValueError(f"{attribute}={shown(name)} is unknown; known here: {', '.join(sorted(kinds))}")
    return kinds[name]
