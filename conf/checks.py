"""The values of a configuration against the arguments that they are for, before anything is built."""

from __future__ import annotations

import inspect
import json
from dataclasses import is_dataclass
from pkgutil import resolve_name
from typing import Any, get_type_hints

from omegaconf import DictConfig, ListConfig, OmegaConf
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from diffusion_priors.conf.command import Stop, one_line


def check_types(config: DictConfig, name: str = "") -> None:
    """Compare every value with the annotation of the constructor argument it is for, throughout `config`.

    Only classes are imported: no weights, no images. Raises Stop naming the key, the value and what is wanted.
    """
    if "_target_" in config:
        _check_arguments(config, name)
    for key in config:
        if not OmegaConf.is_missing(config, key) and isinstance(config[key], DictConfig):
            check_types(config[key], f"{name}.{key}" if name else str(key))


def check_values(values: dict[str, Any], target: Any, name: str) -> None:
    """Compare `values` with the annotations of `target`'s arguments. Raises Stop at the first that does not fit."""
    prefix = f"{name}." if name else ""
    known = inspect.signature(target).parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    hints = get_type_hints(target if is_dataclass(target) or not inspect.isclass(target) else target.__init__)
    for key, value in values.items():
        if key not in known and not open_ended:
            raise Stop(f"{prefix}{key} is unknown; {target.__name__} takes {', '.join(known)}")
        if key in hints:
            _check_value(f"{prefix}{key}", value, hints[key])


def _check_arguments(config: DictConfig, name: str) -> None:
    if OmegaConf.is_missing(config, "_target_"):
        raise Stop(f"{name}._target_ is not set; set it to a class, as in {name}._target_=package.module.Class")
    try:
        target = resolve_name(config._target_)
    except Exception as error:
        raise Stop(f"{name}._target_={config._target_} cannot be imported: {one_line(error)}") from error
    missing = sorted(str(key) for key in OmegaConf.missing_keys(config))
    if missing:
        raise Stop(f"{missing[0]} is not set; add {missing[0]}=VALUE")
    plain = {
        key: OmegaConf.to_container(value, resolve=True) if isinstance(value, ListConfig) else value
        for key, value in config.items()
        if not isinstance(value, DictConfig) and not str(key).startswith("_")
    }
    check_values(plain, target, name)
    required = [p.name for p in inspect.signature(target).parameters.values() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    absent = [key for key in required if key not in config]
    if absent:
        raise Stop(f"{name}.{absent[0]} is not set; add +{name}.{absent[0]}=VALUE")


def _check_value(key: str, value: Any, hint: Any) -> None:
    """Strict, like JSON: a text is no number, a number no text, and 2.5 no count. Lists stand for tuples."""
    try:
        try:
            TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
        except PydanticUserError:  # the annotation is a class of ours, built from a config node
            TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        raise Stop(f"{key}={_shown(value)} is of the wrong kind: {first['msg'][0].lower()}{first['msg'][1:]}") from None


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else json.dumps(value)
