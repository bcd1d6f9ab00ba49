"""The config groups of each script, as the yaml files say: for --help, and for hints about an override that a script does not take."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

CONF = Path(__file__).resolve().parent
SCRIPTS = ("sample", "evaluate", "train")
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The first is many times as fast, where PyYAML was built with it."""


def options(group: str) -> list[str]:
    """The options of a group, those of its folders with the folder's name; empty where there is no such group."""
    if not group or group.startswith("hydra"):
        return []
    return sorted(path.relative_to(CONF / group).with_suffix("").as_posix() for path in (CONF / group).rglob("*.yaml"))


@cache
def groups_of(script: str) -> dict[str, list[str]]:
    """Group → its options, for each group that `script` takes as group=option, in the order of its yaml."""
    defaults = {name: chosen for name, chosen in _defaults(f"{script}.yaml") if not name.startswith("override ")}
    known = {name: options(name) for name in defaults}
    known["data"] = [defaults["data"]] if "data" in defaults else []  # images to restore and images to train on are different classes
    if script != "train":
        known["prior"].remove("new")  # an untrained one
    if "experiment" in known:
        known["experiment"] = [option for option in known["experiment"] if _fits(option, script)]
    return {name: known[name] for name in defaults}


@cache
def groups_inside(script: str) -> dict[str, list[str]]:
    """group@place → the options that have this group inside: {"schedule@prior.schedule": ["prior=custom", …]}."""
    found: dict[str, list[str]] = {}
    for outer, names in groups_of(script).items():
        for option in names:
            for name, _ in _defaults(f"{outer}/{option}.yaml"):
                group, _, place = name.removeprefix("/").partition("@")
                if place and name.startswith("/"):
                    found.setdefault(f"{group}@{outer}.{place}", []).append(f"{outer}={option}")
    return found


def help_text(script: str) -> str:
    """The groups of a script and their options, one a line, as its --help lists them."""
    lines = [f"{group}: {', '.join(names)}" for group, names in groups_of(script).items()]
    inside = [f"{key}: {', '.join(options(key.split('@')[0]))}    (in {', '.join(where)})" for key, where in groups_inside(script).items()]
    return "\n".join([*lines, "", "Some options have groups of their own:", "", *inside])


def hint(script: str, group: str) -> str | None:
    """Why `script` does not take group=option, and what does; None where it takes it, and where there is no such group."""
    if group in groups_of(script) or not options(group) or group == "tuned":
        return None
    inside = [f"{key}=OPTION with {' or '.join(where[:3])}" for key, where in groups_inside(script).items() if key.split("@")[0] == group]
    others = [f"{other}.py" for other in SCRIPTS if group in groups_of(other)]
    advice = f"use {' or '.join(inside)}" if inside else f"it is one of {' and '.join(others)}"
    return f"{script}.py has no group {group}; {advice}"


def misplaced(script: str, group: str, option: object) -> str | None:
    """Why `script` has no use for an option of its group, which another script has."""
    if option in groups_of(script).get(group, []) or option not in options(group):
        return None
    others = [f"{other}.py" for other in SCRIPTS if option in groups_of(other).get(group, [])]
    return f"{group}={option} is for {' and '.join(others)}, not for {script}.py" if others else None


def _fits(experiment: str, script: str) -> bool:
    """Whether a script has every group that an experiment overrides, and every key that it sets."""
    file = f"experiment/{experiment}.yaml"
    offered = {name for name, _ in _defaults(f"{script}.yaml")} | {*_read(f"{script}.yaml")}
    outer = [name.removeprefix("override /") for name, _ in _defaults(file) if "@" not in name]  # not those inside another option
    wanted = {*outer} | {*_read(file)} - {"defaults"}
    swept = _read(file).get("hydra", {}).get("sweeper", {}).get("params") or {}
    wanted |= {key.split(".")[0].split("@")[0] for key in swept}
    return {name for name in wanted if not name.startswith("hydra")} <= offered


def _defaults(file: str) -> Iterator[tuple[str, Any]]:
    for entry in _read(file).get("defaults", []):
        if isinstance(entry, dict):
            yield from entry.items()


@cache
def _read(file: str) -> dict:
    return yaml.load((CONF / file).read_text(encoding="utf-8"), Loader) or {}
