"""Files of a run's folder, read as a stranger's: only regular files, only plain values, and one line for what is wrong."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from diffusion_priors.runs.reading.foreign import parse_json


def open_regular(path: Path) -> BinaryIO:
    """`path` for reading. Raises ValueError for what is no regular file, which could block for ever (a FIFO) or never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("it is no regular file")
    return os.fdopen(descriptor, "rb")


def read_text(path: Path) -> str:
    """The UTF-8 text of a regular file. Raises OSError or ValueError."""
    with open_regular(path) as stream:
        return stream.read().decode("utf-8")


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises OSError or ValueError."""
    return parse_json(read_text(path))
