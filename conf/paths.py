"""Paths on the command line: what exists under the name as it was typed is taken literally, whatever Hydra's grammar makes of it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

TAKES_PATHS = {"input", "measurement", "samples", "truth", "compare", "output_dir", "root", "degraded", "measurements", "freeze", "path"}
"""The last parts of the keys whose values are paths."""
MOST_PIECES = 200
"""Commas in a list. A longer one is left to Hydra."""


def literal_paths(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command, with quotes around paths that exist and need them: data.root=a=b → data.root='a=b'.

    So the names that this project gives to folders, which hold "," and "=", need no quotes of Hydra, alone or in a list:
    compare=[DIR1,DIR2]. In a sweep, a value whose pieces exist too stays a list of values.
    """
    sweeping = bool({"-m", "--multirun"} & {*arguments})
    return [_literal(argument, sweeping) for argument in arguments]


def _literal(argument: str, sweeping: bool) -> str:
    key, found, value = argument.partition("=")
    if not found or key.lstrip("+").rpartition(".")[2] not in TAKES_PATHS or not value or value[0] in "'\"$":
        return argument
    if value[0] == "[" and value[-1] == "]" and not _exists(value):
        pieces = _pieces(value[1:-1].split(","))
        return argument if pieces is None else f"{key}=[{','.join(map(quoted, pieces))}]"
    if key == "output_dir" and not sweeping and ("," in value or "=" in value):  # the name of a folder that is to be made
        return argument if _is_plain(value) else f"{key}={quoted(value)}"
    several = sweeping and "," in value and all(_exists(piece) for piece in value.split(","))
    return argument if several or not _exists(value) or _is_plain(value) else f"{key}={quoted(value)}"


def _is_plain(value: str) -> bool:
    """Whether Hydra reads `value` as this very text."""
    try:
        return OverridesParser.create().parse_override(f"key={value}").value() == value
    except (HydraException, ValueError):
        return False


def _pieces(tokens: Sequence[str]) -> list[str] | None:
    """The tokens joined by "," to paths that all exist; None where that is possible in no way or in more than one."""
    if len(tokens) > MOST_PIECES:
        return None
    ways: list[list[list[str]]] = [[[]]]  # to split the first n tokens, at most two of them
    for end in range(1, len(tokens) + 1):
        found = []
        for start in range(end):
            path = ",".join(tokens[start:end]).strip()
            if ways[start] and _exists(path):
                found += [[*way, path] for way in ways[start]]
        ways.append(found[:2])
    return ways[-1][0] if len(ways[-1]) == 1 else None


def _exists(path: str) -> bool:
    return path != "" and "\0" not in path and os.path.lexists(os.path.expanduser(path))


def quoted(path: str) -> str:
    """A text as Hydra's grammar and OmegaConf's interpolation read it literally."""
    text = re.sub(r"(\\*)'", lambda found: found[1] * 2 + "\\'", path)
    text = re.sub(r"\\*$", lambda found: found[0] * 2, text)
    return "'" + text.replace("${", "\\${") + "'"
