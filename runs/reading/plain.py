"""Files of a run's folder, read as a stranger's: only regular files, only plain values, and one line for what is wrong."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

import yaml

LONGEST_YAML = 2**20
"""Bytes of a YAML file. A configuration has a few thousand."""


def open_regular(path: Path) -> BinaryIO:
    """`path` for reading. Raises ValueError for what is no regular file, which could block for ever (a FIFO) or never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("it is no regular file")
    return os.fdopen(descriptor, "rb")


def read_text(path: Path) -> str:
    """The UTF-8 text of a regular file. Raises OSError or ValueError."""
    with open_regular(path) as stream:
        return stream.read().decode("utf-8")


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises OSError or ValueError."""
    return parse_json(read_text(path))


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError also for NaN and Infinity, which JSON does not have, and for deep nesting."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_yaml(path: Path) -> Any:
    """The value in a YAML file. Raises OSError or ValueError; aliases, deep nesting and huge files are refused."""
    text = read_text(path)
    if len(text) > LONGEST_YAML:
        raise ValueError(f"it has {len(text)} characters, more than {LONGEST_YAML}")
    try:
        return yaml.load(text, _WithoutAliases)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


class _WithoutAliases(yaml.SafeLoader):
    """A few aliases of aliases stand for billions of values. A configuration has none."""

    def compose_node(self, parent: object, index: object) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds an alias (*name), which no configuration of a run does")
        return super().compose_node(parent, index)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
