"""A prior's card: plain values that say what the shapes of its weights cannot."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from torch import nn

from diffusion_priors.diffusion import networks, preconditioning, schedules
from diffusion_priors.diffusion.preconditioning import Preconditioning
from diffusion_priors.diffusion.priors.base import Prior, checked_size
from diffusion_priors.diffusion.schedules import Schedule


def from_card(card: dict, source: Path, size: tuple[int, int] | None, clip: bool) -> Prior:
    """The prior a card describes, its network not yet loaded."""
    try:
        if "class" in card["network"]:
            raise ValueError(
                f"its network is a {card['network']['class']}, which is not built from a file; "
                f"use prior=custom prior.network._target_={card['network']['class']} prior.checkpoint.path=…"
            )
        flags, schedule = dict(card["network"]), dict(card["schedule"])
        meaning = card["preconditioning"]
        meaning = {"name": meaning} if isinstance(meaning, str) else dict(meaning)
        prior = Prior(
            network=named(networks, nn.Module, "kind", flags.pop("kind", "unet"))(**flags),
            schedule=named(schedules, Schedule, "kind", schedule.pop("kind"))(**schedule),
            preconditioning=named(preconditioning, Preconditioning, "name", meaning.pop("name"))(**meaning),
            size=_pair(card["size"]),
            channels=card.get("channels", 3),
            pixel_range=_pair(card["pixel_range"]),
            clip=clip,
            rescale_timesteps=card.get("rescale_timesteps", False),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{source} is no prior card: {type(error).__name__} {error}") from error
    if size is not None:
        prior.size = checked_size(size)
    return prior


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
    if name not in kinds:
        raise ValueError(f"{attribute}={name!r} is unknown; known here: {', '.join(sorted(kinds))}")
    return kinds[name]


def _pair(values: Sequence) -> tuple:
    first, second = values
    return first, second
