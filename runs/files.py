"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}")
"""The temporary names of files that are being written."""
PERMISSIONS = 0o666
"""Of new files, before the umask takes its share."""


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Create `path` with `write(stream)` under a temporary name, then rename it: nobody ever sees half a file.

    The permissions are those that the umask, or the access list of the folder, gives to new files.
    """
    name = path.parent / f".{os.fsdecode(os.fsencode(path.name)[:200])}.{token_hex(4)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PERMISSIONS), "wb") as stream:
            write(stream)
        os.replace(name, path)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}; make room or set another output_dir") from error
    finally:
        with suppress(OSError):
            os.unlink(name)


def delete_partial(folder: Path) -> None:
    """Delete what `write_whole` left in `folder` where kill -9 stopped it. No other process may be writing there."""
    for path in folder.glob(".*.????????"):
        if PARTIAL.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Append one line to `path`, as a whole or not at all."""
    data = line.encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, PERMISSIONS)
        try:
            _append(descriptor, data)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}; make room or set another output_dir") from error


def _append(descriptor: int, data: bytes) -> None:
    """Write all of `data` or cut the file to what it was. Raises OSError."""
    before = os.fstat(descriptor).st_size
    try:
        written = os.write(descriptor, data)
        if written < len(data):
            raise OSError(f"only {written} of {len(data)} bytes could be written")
    except OSError:
        os.ftruncate(descriptor, before)
        raise
