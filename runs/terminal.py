"""Text from files that others wrote, as a terminal may show it."""

from __future__ import annotations

import re

CONTROL = "\x00-\x09\x0b-\x1f\x7f-\x9f"
"""All control characters except the line feed: escape sequences of terminals begin with one."""
DIRECTION = "\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
"""Characters that change the order in which the others are shown, or end a line."""
SURROGATES = "\ud800-\udfff"
"""Bytes of a file name that are not UTF-8; no stream can encode them."""


def printable(text: str, surrogates: bool = False) -> str:
    """`text` with everything escaped that acts on a terminal instead of being shown: ESC becomes \\x1b. Line feeds stay.

    With `surrogates` the bytes of a file name that are not UTF-8 stay too.
    """
    unsafe = CONTROL + DIRECTION + ("" if surrogates else SURROGATES)
    return re.sub(f"[{unsafe}]", lambda match: match[0].encode("unicode_escape").decode(), text)
