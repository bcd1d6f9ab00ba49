"""Ids of images: each is one component of a path, because a run keeps the images of `<id>` in images/<id>/."""

from __future__ import annotations

import os
import re

from diffusion_priors.runs.printable import printable

LONGEST = 255
"""Bytes of one component of a path, on the common file systems."""
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters that act on a terminal, end a line, or change the order in which the others are shown."""


def check_id(name: str) -> None:
    """Raises ValueError, in one line, for a text that is not a single, visible component of a path on every system."""
    reason = _fault(name)
    if reason is not None:
        raise ValueError(f"the id {printable(str(name), 60)!r} of an image cannot name a folder: {reason}; give the image another name")


def _fault(name: object) -> str | None:
    if not isinstance(name, str):
        return f"it is of the type {type(name).__name__}, not a text"
    if name in ("", ".", ".."):
        return "it names no folder of its own"
    if "/" in name or "\\" in name:
        return "it holds a separator of paths"
    if CONTROL.search(name):
        return "it holds a control character"
    try:
        size = len(os.fsencode(name))
    except UnicodeEncodeError:
        return "no file system can hold it"
    return f"it has {size} bytes, more than {LONGEST}" if size > LONGEST else None
