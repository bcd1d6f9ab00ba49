"""A composed configuration against the classes that it is for, before anything is built.

This is the one place where the values of a configuration get their type: every script's settings (conf/settings.py),
and every part (a node with a `_target_`) against the annotation of the argument that it becomes.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import invalidate_caches
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from omegaconf import DictConfig, ListConfig, OmegaConf

from diffusion_priors.conf import PROJECT
from diffusion_priors.conf.errors import Stop, one_line, refusing
from diffusion_priors.runs.printable import printable
from diffusion_priors.runs.values import annotations, argument_hints, arguments, check_value, check_values, dotted, required, shown

PLAIN = (bool, int, float, str, list, tuple, dict, set, object, Path)
"""What a value may be without being built."""

OF_PROTOCOLS = ("__init__", "__subclasshook__")
"""Methods that Python adds to every protocol."""
UNIONS = (Union, UnionType)

Settings = TypeVar("Settings")


def settings_of(config: DictConfig, kind: type[Settings]) -> Settings:
    """The settings of a script: an instance of the dataclass `kind`. Raises Stop for a value that is missing or of the wrong kind."""
    names = list(argument_hints(kind))
    _require(config, names)
    values = {name: plain(config[name]) for name in names}
    with refusing():
        check_values(values, kind)
    return kind(**values)


def check_groups(config: DictConfig, kind: type, groups: Mapping[str, Any], other_groups: Sequence[str] = ()) -> None:
    """Compare the config groups with the classes that they are for.

    Raises Stop for a key that is no setting of `kind` and no group, for a group that is missing, and for what does not fit.
    """
    known = {*argument_hints(kind), *groups, *other_groups}
    for key in config:
        if key not in known:
            raise Stop(f"{key} is unknown; known here: {', '.join(sorted(known))}")
    _require(config, [*groups])
    for group, wanted in groups.items():
        check_part(config[group], wanted, group)


def _require(config: DictConfig, names: Sequence[str]) -> None:
    for name in names:
        if OmegaConf.is_missing(config, name):
            raise Stop(f"{name} is not set; add {name}=VALUE")
        if name not in config:
            raise Stop(f"{name} is missing; leave out ~{name}{_choose(name)}")


def check_part(value: Any, hint: Any, name: str) -> None:
    """Compare a value of the configuration, and all below it, with the annotation of what it is for.

    Only classes are imported: no weights, no images. Raises Stop naming the key, the value and what is wanted.
    """
    kinds, inner = _kinds(hint)
    if _is_built(value):
        if not any(kind is object or _is_a(type(value), kind) for kind in kinds):
            raise Stop(f"{name} is a {type(value).__name__}, and no {_named(kinds) or 'object'}{_choose(name)}")
    elif isinstance(value, DictConfig) and ("_target_" in value or OmegaConf.is_missing(value, "_target_")):
        _check_target(value, kinds, name, called_later=get_origin(hint) is Callable)
    elif isinstance(value, DictConfig) and inner is not None:
        for key in value:
            check_part(value[key], inner, dotted(name, key))
    elif isinstance(value, ListConfig) and inner is not None and any(isinstance(item, DictConfig) for item in value):
        for index, item in enumerate(value):
            check_part(item, inner, dotted(name, index))
    elif value is None and _allows_none(hint):
        return
    elif kinds and not {*kinds} & {*PLAIN}:
        raise Stop(f"{name}={shown(plain(value))} is no {_named(kinds)}{_choose(name)}")
    else:
        with refusing():
            check_value(name, plain(value), _without_classes(hint))


def _is_built(value: Any) -> bool:
    """Whether it is an object that no configuration file holds: one that Python code has built and given in place of a node."""
    return not (value is None or isinstance(value, (bool, int, float, str, bytes, list, tuple, dict)) or OmegaConf.is_config(value))


def _check_target(config: DictConfig, kinds: tuple[type, ...], name: str, called_later: bool = False) -> None:
    """A node with a `_target_`: what it names can be built, is one of `kinds`, and takes the arguments given.

    Where a callable is wanted, `_partial_` may leave a function's first argument to the call, or building a class to it. Values
    for such a class, which is often of another library, are not compared with its annotations.
    """
    target = _imported(config, name)
    called_later = called_later and config.get("_partial_") is True
    wanted = tuple(kind for kind in kinds if kind not in PLAIN)
    made = target if inspect.isclass(target) else annotations(target).get("return")
    if wanted and inspect.isclass(made) and not any(_is_a(made, kind) for kind in wanted):
        raise Stop(f"{name}._target_={printable(str(config._target_), 100)} is no {_named(wanted)}{_choose(name)}")
    missing = sorted(str(key) for key in OmegaConf.missing_keys(config))
    if missing:
        raise Stop(f"{missing[0]} is not set; add {missing[0]}=VALUE")
    hints = argument_hints(target)
    open_ended = _is_open_ended(target)
    for key in config:
        if key == "_target_" or (key == "_partial_" and called_later):
            continue
        if key not in hints and (str(key).startswith("_") or not open_ended):
            raise Stop(f"{dotted(name, key)} is unknown; {target.__name__} takes {', '.join(arguments(target)) or 'no argument'}")
        own = Any if called_later and inspect.isclass(target) else hints.get(key, Any)
        check_part(config[key], own, dotted(name, key))
    needed = required(target)[1 if called_later and not inspect.isclass(target) else 0 :]
    absent = [key for key in needed if key not in config]
    if absent:
        raise Stop(f"{name}.{absent[0]} is not set; add +{name}.{absent[0]}=VALUE")


def _is_a(made: type, kind: type) -> bool:
    """Whether a class is below another one. A protocol has no classes below it, only classes with the same methods."""
    if getattr(kind, "_is_protocol", False):
        methods = [name for name, value in vars(kind).items() if inspect.isfunction(value) and name not in OF_PROTOCOLS]
        return all(any(name in vars(base) for base in made.__mro__) for name in methods)
    return issubclass(made, kind)


def _imported(config: DictConfig, name: str) -> Any:
    """The class or function that `_target_` names. Raises Stop for anything else."""
    if OmegaConf.is_missing(config, "_target_"):
        raise Stop(f"{name}._target_ is not set; set it to a class, as in {name}._target_=package.module.Class")
    path, text = config._target_, printable(str(config._target_), 100)
    try:
        _find_in_current_folder(path)
        target = resolve_name(path)
    except ModuleNotFoundError as error:
        where = f"looked in the installed packages, in the project and in the current folder, {Path.cwd()}"
        raise Stop(f"{name}._target_={text} cannot be imported: {one_line(error)}; {where}") from error
    except Exception as error:
        raise Stop(f"{name}._target_={text} cannot be imported: {one_line(error)}") from error
    if not (inspect.isclass(target) or inspect.isfunction(target) or inspect.ismethod(target)):
        raise Stop(f"{name}._target_={text} is no class but a {type(target).__name__}{_choose(name)}")
    try:
        inspect.signature(target)
    except ValueError as error:
        raise Stop(f"{name}._target_={text} does not say what it takes, so it cannot be built{_choose(name)}") from error
    return target


def _find_in_current_folder(path: str) -> None:
    """Let a class be imported from a file in the current folder, unless it is found elsewhere. Nothing else is ever looked for there."""
    top = path.split(".")[0]
    here = Path.cwd()
    if find_spec(top) is None and ((here / f"{top}.py").is_file() or (here / top).is_dir()):
        sys.path.append(str(here))
        invalidate_caches()


def _is_open_ended(target: Any) -> bool:
    """Whether it takes further arguments as **kwargs. nn.Module's own constructor only refuses them."""
    own = getattr(target, "__init__", target)
    gathers = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(target).parameters.values())
    return gathers and getattr(own, "__qualname__", "") != "Module.__init__"


def _kinds(hint: Any) -> tuple[tuple[type, ...], Any]:
    """An annotation → the classes that it allows, and the annotation of its items where it is a dict, list or tuple."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _kinds(get_args(hint)[0])
    if origin in UNIONS:
        found = [_kinds(option) for option in get_args(hint)]
        return tuple(kind for kinds, _ in found for kind in kinds), next((inner for _, inner in found if inner is not None), None)
    if inspect.isclass(origin) and issubclass(origin, Collection):
        return (list,), next(iter(get_args(hint)[-1:]), Any)
    if hint is Any or origin is not None:
        return (object,), Any
    return ((hint,), None) if inspect.isclass(hint) and hint is not NoneType else ((), None)


def _allows_none(hint: Any) -> bool:
    return hint in (Any, None, NoneType) or (get_origin(hint) in UNIONS and any(map(_allows_none, get_args(hint))))


def _without_classes(hint: Any) -> Any:
    """The alternatives of an annotation that need not be built."""
    if get_origin(hint) not in UNIONS:
        return hint
    return Union[tuple(option for option in get_args(hint) if {*_kinds(option)[0]} <= {*PLAIN})]  # noqa: UP007 - made at run time


def _named(kinds: tuple[type, ...]) -> str:
    return " or ".join(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)


def _choose(name: str) -> str:
    """The options of a config group, as the end of a message."""
    options = sorted(path.stem for path in (PROJECT / "conf" / name).glob("*.yaml"))
    return f"; choose one of {', '.join(options)}, as in {name}={options[0]}" if options else ""


def plain(value: Any) -> Any:
    """A value of the configuration as lists, dictionaries, numbers and texts, interpolations resolved."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
