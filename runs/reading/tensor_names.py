"""The names in a file of weights, without torch and without running anything."""

from __future__ import annotations

import json
import pickletools
import zipfile
from io import BytesIO
from pathlib import Path

LONGEST_HEADER = 100_000_000
"""Bytes: the bound of safetensors itself."""
MOST_BYTES = 64 * 2**20
"""Of a pickle that is looked through: of large ones the beginning."""


def names_in(path: Path) -> list[str]:
    """The names of the tensors of safetensors; the texts of a pickle, in order, its tensors' names among them. Of other files none."""
    try:
        if path.suffix == ".safetensors":
            return _of_safetensors(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as content:
                inner = next(name for name in content.namelist() if name.endswith("data.pkl"))
                with content.open(inner) as stream:
                    return _texts(stream.read(MOST_BYTES))
        with path.open("rb") as stream:
            return _texts(stream.read(MOST_BYTES))
    except (OSError, ValueError, StopIteration, zipfile.BadZipFile, RecursionError):
        return []


def _of_safetensors(path: Path) -> list[str]:
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > LONGEST_HEADER:
            return []
        header = json.loads(stream.read(length))
    return [name for name in header if name != "__metadata__"] if isinstance(header, dict) else []


def _texts(pickled: bytes) -> list[str]:
    """The texts of up to four pickles in a row, as torch once saved them, to where they end. They are read, not obeyed."""
    found: list[str] = []
    stream = BytesIO(pickled)
    try:
        for _ in range(4):
            for operation, argument, _ in pickletools.genops(stream):
                if isinstance(argument, str) and operation.name.endswith(("UNICODE", "UNICODE8", "GLOBAL")):
                    found.append(argument)
    except (ValueError, IndexError, UnicodeDecodeError, KeyError):
        return found  # no pickle, or one that is cut short
    return found
