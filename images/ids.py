"""The id of an image: its path below what was given, as one component of a path."""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import PurePath
from unicodedata import normalize

from diffusion_priors.images.formats import SUFFIXES

LONGEST = 200
"""Bytes of an id. File systems allow 255, and a file's name is longer by a suffix."""
OMITTED = ".png"
"""The suffix that an id leaves out."""
SEPARATOR, ESCAPE = "~", "%"
RESERVED = set('/\\:*?"<>|') | {SEPARATOR, ESCAPE}
"""Characters that some file system or some program takes for more than a part of a name."""


def image_id(path: PurePath) -> str:
    """The id of the image at `path`, relative to the folder that was given; it depends on this path alone.

    It is the path with ~ for /, without .png: face.png → face, face.jpg → face.jpg, sub/face.png → sub~face. Characters that
    are reserved, cannot be printed or are no UTF-8, and a leading dot, become % and two hexadecimal digits per byte, so
    that two paths never share an id. What is longer than `LONGEST` ends in a hash instead.
    """
    parts = list(path.parts)
    stem = parts[-1].removesuffix(OMITTED)
    if stem and not stem.lower().endswith(tuple(SUFFIXES)):  # a.jpg.png keeps its suffix: a.jpg is another image
        parts[-1] = stem
    name = SEPARATOR.join(_escaped(part) for part in parts)
    if len(name.encode()) <= LONGEST:
        return name
    digest = blake2b(name.encode(), digest_size=12).hexdigest()
    return f"{name.encode()[: LONGEST - len(digest) - 2].decode(errors='ignore')}{SEPARATOR * 2}{digest}"


def alike(ids: Iterable[str]) -> tuple[str, str] | None:
    """Two ids that share a folder where upper and lower case, or é in one character and in two, count as one; None without such."""
    seen: dict[str, str] = {}
    for name in ids:
        first = seen.setdefault(normalize("NFC", name).casefold(), name)
        if first != name:
            return first, name
    return None


def _escaped(part: str) -> str:
    text = "".join(c if c not in RESERVED and c.isprintable() else _bytes(c) for c in part)
    return f"{_bytes('.')}{text[1:]}" if text.startswith(".") else text


def _bytes(character: str) -> str:
    return "".join(f"{ESCAPE}{byte:02X}" for byte in os.fsencode(character))
