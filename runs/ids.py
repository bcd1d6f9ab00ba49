"""Ids of images: each is one component of a path, because a run keeps the images of `<id>` in images/<id>/."""

from __future__ import annotations

import os

from diffusion_priors.runs.terminal import printable

LONGEST = 255
"""Bytes of one component of a path, on the common file systems."""


def check_id(name: str) -> None:
    """Raises ValueError, in one line, for a text that is not a single, visible component of a path on every system."""
    reason = _fault(name)
    if reason is not None:
        shown = printable(name) if isinstance(name, str) else repr(name)
        raise ValueError(f"the id {shown[:60]!r} of an image cannot name a folder: {reason}; give the image another name")


def _fault(name: object) -> str | None:
    if not isinstance(name, str):
        return f"it is of the type {type(name).__name__}, not a text"
    if name in ("", ".", ".."):
        return "it names no folder of its own"
    if "/" in name or "\\" in name:
        return "it holds a separator of paths"
    if printable(name, surrogates=True) != name or "\n" in name:
        return "it holds a control character"
    try:
        size = len(os.fsencode(name))
    except UnicodeEncodeError:
        return "no file system can hold it"
    return f"it has {size} bytes, more than {LONGEST}" if size > LONGEST else None
