"""Text from strangers (cards, records, file names) made fit for a terminal, and addresses without their secrets."""

from __future__ import annotations

import re

USER = re.compile(r"(://)[^\s/?#]*@")
QUERY = re.compile(r"(://[^\s?#'\"]*\?)([^\s#'\"]*)")
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


def without_secrets(text: str) -> str:
    """The text with *** for the users, passwords and queries in its addresses.

    https://user:password@host/x.pt?token=abc → https://***@host/x.pt?token=***
    """
    return QUERY.sub(_masked, USER.sub(r"\1***@", text))


def _masked(match: re.Match[str]) -> str:
    return match[1] + VALUE.sub(lambda part: f"{part[1] or ''}***", match[2])
