"""What befalls files: a disk that is full, a stranger's code inside them."""

from __future__ import annotations

import os
import resource
from pathlib import Path


class Mischief:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def no_room(size: int = 6000) -> None:
    """Files of this process may not grow beyond `size` bytes, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def break_writing(monkeypatch, name: str, how: str = "write", room: int = 300) -> None:
    """Let files whose name ends with `name` fail: after `room` bytes ("write"), or as they are given that name ("rename")."""
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
    """A stream that takes `room` bytes and no more."""

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
