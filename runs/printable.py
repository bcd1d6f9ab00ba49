"""Text from strangers made fit for a terminal, and text for strangers without secrets and without the name of a home."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

USER = re.compile(r"(://)[^\s/?#]*@")
QUERY = re.compile(r"(://[^\s?#'\"]*\?)([^\s#'\"]*[^\s#'\",.:;)])")
VALUE = re.compile(r"([^&;=]*=)?[^&;]+")


def printable(text: str, longest: int | None = None) -> str:
    r"""The text with its control characters written out: ESC becomes \x1b, a line break \n.

    A terminal obeys such characters: they move its cursor, hide text and set its title. Characters that reverse or hide
    text, and bytes of a file name that are not UTF-8, are written out too. Of a text with more than `longest`
    characters, the rest is counted instead of shown.
    """
    if longest is not None and len(text) > longest:
        text = f"{text[:longest]}… ({len(text) - longest} more characters)"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


def show(text: str) -> None:
    """Print lines, each of them printable: they hold names, titles and errors from files that others may have written."""
    print("\n".join(printable(line) for line in text.split("\n")), flush=True)


def command_of(script: str) -> str:
    """ "sample" → the command as this copy of the project has it: python sample.py in a checkout, diffusion-priors sample if installed."""
    checkout = (Path(__file__).resolve().parents[1] / "pyproject.toml").is_file()
    return f"python {script}.py" if checkout else f"diffusion-priors {script}"


def without_secrets(text: str) -> str:
    """The text with *** for the users, passwords and queries in its addresses.

    https://user:password@host/x.pt?token=abc → https://***@host/x.pt?token=***
    """
    return QUERY.sub(_masked, USER.sub(r"\1***@", text))


def _masked(match: re.Match[str]) -> str:
    return match[1] + VALUE.sub(lambda part: f"{part[1] or ''}***", match[2])


def without_home(value: Any) -> Any:
    """A text with ~ for the user's home folder; in lists and dictionaries, all their texts. Other values stay as they are.

    /home/me/faces → ~/faces: what a run keeps is sent to others, and a home has a person's name.
    """
    if isinstance(value, dict):
        return {key: without_home(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_home(inner) for inner in value]
    return _home().sub("~", value) if isinstance(value, str) else value


def _home() -> re.Pattern[str]:
    """The home folder as it is called and as it is resolved, as a whole path or the beginning of one."""
    named = os.path.expanduser("~").rstrip("/")
    homes = {path for path in (named, os.path.realpath(named)) if path.count("/") and len(path) > 1 and named.startswith("/")}
    if not homes:
        return re.compile("(?!)")
    return re.compile(rf"(?<![\w.~/-])(?:{'|'.join(map(re.escape, sorted(homes)))})(?![\w.-])")
