"""A part by the name of its yaml, with settings, built without Hydra: what the Python interface (api/) stands on.

`composed` reads the few things that this project's yaml files of options ask of Hydra: another option of the same group as
a start, options of other groups inside, `# @package _global_`, and the override of another group's choice.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from omegaconf import DictConfig, ListConfig, OmegaConf

from diffusion_priors.conf import PROJECT
from diffusion_priors.conf.checks import check_part, plain
from diffusion_priors.conf.errors import Stop
from diffusion_priors.conf.groups import options
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.kinds import option_for
from diffusion_priors.runs.values import shown

GLOBAL = "# @package _global_"


class Choice(NamedTuple):
    """An option of another group that an option chooses, such as a solver's sampler, and the settings that it gives it."""

    option: str
    settings: dict[str, Any]


class Composed(NamedTuple):
    """The `node` of an option, as Hydra composes it, the groups `inside` it (key → group), and what else it chooses, by group."""

    node: DictConfig
    inside: dict[str, str]
    chosen: dict[str, Choice]


class Made(NamedTuple):
    """What a part was made from: its `config` as plain values and, by group, what its option chooses of other groups."""

    config: dict[str, Any]
    chosen: dict[str, Choice]


MADE: WeakKeyDictionary[object, Made] = WeakKeyDictionary()
"""The origin of each part that `named` built. Parts that were built by hand are not in it."""


def named(group: str, option: str, settings: Mapping[str, Any], kind: Any) -> Any:
    """The part that `option` of `group` describes, changed by `settings`, as one of `kind`.

    A setting is a plain value, a mapping that changes a part inside this one, the name of an option where such a part has a
    group of its own, or an object that is built already. Raises ValueError, in one line, for what does not fit.
    """
    try:
        node, inside, chosen = composed(group, option)
        node = OmegaConf.create({group: node}, flags={"allow_objects": True})[group]  # messages name the key from the group on
        for key, value in settings.items():
            _set(node, inside, key, value)
        check_part(node, kind, group)
    except Stop as error:
        raise ValueError(str(error)) from None
    built = _built(node)
    if isinstance(built, Hashable) and hasattr(built, "__weakref__"):
        MADE[built] = Made(plain(node), chosen)
    return built


def prior_from(path: Path, settings: Mapping[str, Any]) -> Prior:
    """The prior in a file or folder, by the option of conf/prior that reads such a one, changed by `settings`.

    Raises ValueError and FileNotFoundError, in one line, for what cannot be used.
    """
    option = option_for(path)
    key, *inner = option.key.split(".")[1:]
    if not inner:
        return named("prior", option.name, {key: str(path)} | settings, Prior)
    given = settings.get(key, {})
    placed = {inner[0]: str(path)} | given if isinstance(given, Mapping) else given
    return named("prior", option.name, {**settings, key: placed}, Prior)


def composed(group: str, option: str) -> Composed:
    """The configuration of an option. Raises Stop where there is none of that name."""
    known = options(group)
    if option not in known:
        advice = f"; choose one of {', '.join(known)}" if known else f"; there is no group {group}"
        raise Stop(f"{group}={shown(option)} is unknown{advice}")
    path = PROJECT / "conf" / group / f"{option}.yaml"
    content, inside, chosen = _read(path), {}, {}
    node = OmegaConf.create({}, flags={"allow_objects": True})
    for entry in content.pop("defaults", []):
        if isinstance(entry, str):
            base = composed(group, entry)
            node, inside, chosen = OmegaConf.merge(node, base.node), inside | base.inside, chosen | base.chosen
            continue
        ((key, name),) = entry.items()
        other, _, place = key.removeprefix("override ").removeprefix("/").partition("@")
        if key.startswith("override "):
            chosen[other] = Choice(name, {})
        else:
            OmegaConf.update(node, place, composed(other, name).node, force_add=True)
            inside[place] = other
    if GLOBAL in path.read_text(encoding="utf-8").splitlines():
        chosen = {other: Choice(choice.option, plain(content.get(other, {}))) for other, choice in chosen.items()}
        content = content[group]
    return Composed(OmegaConf.merge(node, content), inside, chosen)


def _read(path: Path) -> DictConfig:
    content = OmegaConf.load(path)
    return content if isinstance(content, DictConfig) else OmegaConf.create({})


def _set(node: DictConfig, inside: Mapping[str, str], key: str, value: Any) -> None:
    """One setting. A key that the part does not take is refused later, with the names that it takes."""
    if isinstance(value, str) and key in inside:
        node[key] = composed(inside[key], value).node
    elif isinstance(value, Mapping) and OmegaConf.is_dict(node._get_node(key)):
        for inner, setting in value.items():
            _set(node[key], {}, inner, setting)
    elif isinstance(value, str | Path):
        node[key] = str(value).replace("${", "\\${")  # a text, not an interpolation
    else:
        node[key] = list(value) if isinstance(value, tuple) else value


def _built(node: Any) -> Any:
    """The object that a node describes; plain values as they are."""
    if isinstance(node, ListConfig):
        return [_built(item) for item in node]
    if not isinstance(node, DictConfig):
        return node
    values = {key: _built(node[key]) for key in node if key not in ("_target_", "_partial_")}
    if "_target_" not in node:
        return values
    target = resolve_name(node._target_)
    return partial(target, **values) if node.get("_partial_") else target(**values)
