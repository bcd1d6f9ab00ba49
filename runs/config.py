"""The configuration that a run's folder keeps, and how it differs from another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from diffusion_priors.runs.layout import CONFIG as CONFIG
from diffusion_priors.runs.printable import printable, without_home
from diffusion_priors.runs.reading.foreign import read_yaml

SHOWN = 3
"""Differences or faults that a message names. It counts the others."""


def read_config(path: Path) -> dict:
    """The content of a run's config.yaml: "config" (resolved, plain values), "overrides", "source", ….

    Raises FileNotFoundError where there is none and ValueError where it is damaged.
    """
    advice = "so its run cannot be compared with this one; use overwrite=true to start over"
    try:
        content = read_yaml(path)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged, {advice}") from error
    if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
        raise ValueError(f"{path} holds no configuration, {advice}")
    return content


def differences(path: Path, config: dict, may_differ: Sequence[str]) -> list[str]:
    """How the configuration kept at `path` differs from `config`: one text per key, empty where no file is kept.

    `may_differ` are dotted keys that are not compared, with all below them. Raises ValueError where the file is damaged.
    """
    try:
        old = flat(without_home(read_config(path)["config"]))
    except FileNotFoundError:
        return []

    def compared(values: dict) -> dict:
        return {key: value for key, value in values.items() if not any(key == name or key.startswith(f"{name}.") for name in may_differ)}

    return changed_keys(compared(old), compared(flat(without_home(config))))


def changed_keys(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """The keys whose values differ: ["seed was 0, is 1"]; those that only one of the two has come last."""
    keys = sorted({*old, *new}, key=lambda key: (key not in old or key not in new, key))
    return [f"{key} was {old.get(key)!r}, is {new.get(key)!r}" for key in keys if old.get(key) != new.get(key)]


def refuse(root: Path, changes: Sequence[str]) -> None:
    """Raises ValueError, naming the first of them, where there are `changes` between the run in `root` and the one asked for."""
    if changes:
        raise ValueError(
            f"{root} holds a run with another configuration: {listed(changes)}; choose another output_dir, or overwrite=true to start over"
        )


def listed(texts: Sequence[str], longest: int | None = 100) -> str:
    """The first texts as the part of a message, each with at most `longest` characters, and the number of the others."""
    more = [f"and {len(texts) - SHOWN} more"] if len(texts) > SHOWN else []
    return "; ".join([*(printable(one, longest) for one in texts[:SHOWN]), *more])


def flat(node: object, path: str = "") -> dict[str, object]:
    """Nested dictionaries → {dotted key: value}."""
    if not isinstance(node, dict) or not node:
        return {path: node}
    return {key: value for name, inner in node.items() for key, value in flat(inner, f"{path}.{name}" if path else str(name)).items()}
