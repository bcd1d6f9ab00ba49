"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Create `path` with `write(stream)` under a temporary name, then rename it: nobody ever sees half a file."""
    name = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as stream:
            write(stream)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}; make room or set another output_dir") from error
    finally:
        with suppress(OSError):
            if name is not None:
                os.unlink(name)


def append_line(path: Path, line: str) -> None:
    """Append one line to `path`, as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = line.encode() + b"\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        before = os.fstat(descriptor).st_size
        try:
            written = os.write(descriptor, data)
            if written < len(data):
                raise OSError(f"only {written} of {len(data)} bytes could be written to {path}")
        except OSError as error:
            os.ftruncate(descriptor, before)
            raise OSError(f"cannot write {path}: {error.strerror or error}; make room or set another output_dir") from error
    finally:
        os.close(descriptor)
