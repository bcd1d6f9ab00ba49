"""Faulty files: a full disk, and pickled code."""

from __future__ import annotations

import os
import resource
from pathlib import Path


class Mischief:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def no_room(size: int = 6000) -> None:
    """Stop files of this process from growing beyond `size` bytes, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def break_writing(monkeypatch, name: str, how: str = "write", room: int = 300) -> None:
    """Let files whose name ends with `name` fail, after `room` bytes ("write") or when they get that name ("rename")."""
    real_open, real_replace = os.fdopen, os.replace

    def replace(source, target):
        if Path(target).name.endswith(name):
            raise OSError(28, "no room")
        return real_replace(source, target)

    def fdopen(descriptor, *args, **kwargs):
        stream = real_open(descriptor, *args, **kwargs)
        return Full(stream, room) if name in os.readlink(f"/proc/self/fd/{descriptor}") else stream

    if how == "rename":
        monkeypatch.setattr(os, "replace", replace)
    else:
        monkeypatch.setattr(os, "fdopen", fdopen)


class Full:
    """A stream that takes at most `room` bytes."""

    def __init__(self, stream, room: int) -> None:
        self.stream, self.room = stream, room

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stream.close()

    def write(self, data) -> int:
        taken = self.stream.write(bytes(data)[: self.room])
        self.room -= taken
        if taken < len(data):
            raise OSError(28, "no room")
        return taken

    def flush(self) -> None:
        self.stream.flush()
