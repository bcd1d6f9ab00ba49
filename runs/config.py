"""The configuration that a run's folder keeps, and what differs between it and another one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from diffusion_priors.runs.layout import CONFIG as CONFIG


def read_config(path: Path) -> dict:
    """The content of a run's config.yaml: "config" (resolved, plain), "overrides", "source", ….

    Raises FileNotFoundError where there is none and ValueError where it is damaged.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(content["config"], dict):
            return content
    except FileNotFoundError:
        raise
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged, so its run cannot be compared with this one; overwrite=true begins anew") from error
    raise ValueError(f"{path} holds no configuration, so its run cannot be compared with this one; overwrite=true begins anew")


def differences(path: Path, config: dict, free: Sequence[str]) -> list[str]:
    """What differs between the configuration kept at `path` and `config`, as lines key: there → here; none where nothing is kept.

    `free` are dotted keys that may differ, with all below them. Raises ValueError where the file is damaged.
    """
    try:
        old = flat(read_config(path)["config"])
    except FileNotFoundError:
        return []
    new = flat(config)
    fixed = [key for key in sorted({*old, *new}) if not any(key == name or key.startswith(f"{name}.") for name in free)]
    return [f"{key} was {old.get(key)!r}, is {new.get(key)!r}" for key in fixed if old.get(key) != new.get(key)]


def refuse(root: Path, changes: Sequence[str]) -> None:
    """Raises ValueError, naming them, where there are `changes` between the run in `root` and the one asked for."""
    if changes:
        raise ValueError(
            f"{root} holds a run with another configuration: {'; '.join(changes)}; "
            "choose another output_dir, or overwrite=true to begin anew"
        )


def flat(node: object, path: str = "") -> dict[str, object]:
    """Nested dictionaries → {dotted key: value}."""
    if not isinstance(node, dict) or not node:
        return {path: node}
    return {key: value for name, inner in node.items() for key, value in flat(inner, f"{path}.{name}" if path else str(name)).items()}
