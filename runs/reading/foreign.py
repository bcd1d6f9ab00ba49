"""YAML and JSON from strangers: read within bounds, so that no file keeps a run busy or fills its memory."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import yaml

LARGEST_FILE = 8 * 2**20
"""Bytes. The largest honest file is a card with a table of betas."""
MOST_NODES = 300_000
"""Values in a file, each counted as often as the aliases of YAML repeat it."""
DEEPEST = 50
"""Levels of nesting."""
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file: plain values.

    Raises ValueError, in one line, for what is no YAML and for what is too large, too deep or repeats itself without end;
    OSError where it cannot be read.
    """
    text = read_text(path)
    try:
        _check_yaml(text)
        return yaml.load(text, LOADER)
    except yaml.YAMLError as error:
        raise ValueError(_first_line(error)) from error
    except (RecursionError, OverflowError, TypeError) as error:
        raise ValueError(f"it is no plain YAML: {_first_line(error)}") from error


def parse_json(text: str | bytes) -> Any:
    """The value that a JSON text holds.

    Raises ValueError, in one line, also for NaN and Infinity, which JSON does not have, and for what is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def read_text(path: Path) -> str:
    """The text of a regular file of a bounded size. Raises ValueError for any other, OSError where it cannot be read."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is no regular file")
    if status.st_size > LARGEST_FILE:
        raise ValueError(f"it has {status.st_size} bytes, and such a file has at most {LARGEST_FILE}")
    return path.read_text(encoding="utf-8")


def _check_yaml(text: str) -> None:
    """Raises ValueError for a text of too many or too deeply nested values. Nothing is built from it."""
    sizes: dict[str, int] = {}
    opened: list[tuple[str | None, int]] = []
    nodes = 0
    for event in yaml.parse(text, LOADER):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"its alias *{event.anchor} stands within itself")
            nodes += sizes[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, nodes))
            nodes += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor is not None:
                sizes[anchor] = nodes - before
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if nodes > MOST_NODES:
            raise ValueError(f"it holds more than {MOST_NODES} values, aliases counted")
        if len(opened) > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} levels deep")


def _first_line(error: Exception) -> str:
    """What a parser says, without the excerpts of the text that follow it."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem and mark is not None:
        return f"line {mark.line + 1}: {problem}"
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
