"""One run at a time works in a folder: an operating system's lock, which ends with the process that holds it."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from diffusion_priors.runs.layout import LOCK
from diffusion_priors.runs.printable import printable

PATIENCE = 2.0
"""Seconds that the first process waits, because the others of its run look at the lock too."""
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""How file systems answer that have no locks."""


@contextmanager
def locked(root: Path, first: bool = True) -> Iterator[None]:
    """Keep other runs out of the folder `root` within this block; the folder is created.

    The processes of one run share the lock of the `first`; the others only look who holds it, and create nothing. At the
    end the lock's file is removed, and so are the folders that were created here and are still empty. What kill -9 leaves
    of it locks nothing.
    On network file systems the lock holds as far as they pass it on: NFS 4 and Lustre with the option flock do.

    Raises ValueError, saying who has it, where another run works in the folder, and OSError where it cannot be written.
    """
    path = root / LOCK
    if not first:
        _look(path)
        yield
        return
    made = _create(root)
    lock = FileLock(path)
    try:
        _acquire(lock, root)
        yield
    finally:
        if lock.is_locked:
            path.unlink(missing_ok=True)  # while it is held: whoever waits for this file looks whether it is still there
            lock.release()
        with suppress(OSError):
            for folder in made:
                folder.rmdir()


def started_by_first() -> bool:
    """Whether the first process of this run started this one, as Lightning does without a launcher: after its own checks."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0 and _group() is None


def _create(root: Path) -> list[Path]:
    """Create `root` → the folders that did not exist before, innermost first. Raises OSError in one line."""
    try:
        missing = [path for path in (root, *root.parents) if not path.exists()]
        root.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError for a NUL
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"cannot write to {root}: {reason}; set output_dir to a folder that can be written") from error
    return missing


def _acquire(lock: FileLock, root: Path) -> None:
    path = root / LOCK
    try:
        lock.acquire(timeout=PATIENCE, poll_interval=0.05)
    except Timeout as error:
        raise _in_use(path) from error
    except OSError as error:
        if error.errno in WITHOUT_LOCKS:
            path.unlink(missing_ok=True)
            print(f"{root}: this file system has no locks ({error.strerror}); start no second run in this folder", file=sys.stderr)
            return
        reason = f"{error.strerror or error}; set output_dir to a folder that can be written"
        raise OSError(f"cannot write to {root}: {reason}") from error
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "group": _group(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
    with suppress(OSError):  # a full disk: the lock holds all the same
        path.write_text(json.dumps(holder))


def _look(path: Path) -> None:
    """Raises ValueError where the first process of another run has the lock."""
    if not path.exists():
        return
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0.0)
    except Timeout as error:
        if not _is_ours(_holder(path)):
            raise _in_use(path) from error
    except OSError:  # what keeps this process out keeps the first one out too, which says so
        return
    else:
        path.unlink(missing_ok=True)  # what kill -9 left
        lock.release()


def _in_use(path: Path) -> ValueError:
    return ValueError(f"{path.parent} is in use by {_described(_holder(path))}; wait until it ends, or choose another output_dir")


def _holder(path: Path) -> dict:
    """What the process that has the lock says of itself; {} where that is not known."""
    try:
        with path.open("rb") as stream:
            content = json.loads(stream.read(4096))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _described(holder: dict) -> str:
    if not holder:
        return "another process"
    pid, host, since = (printable(str(holder.get(name, "?")), 60) for name in ("pid", "host", "since"))
    return f"process {pid} on {host} since {since}"


def _is_ours(holder: dict) -> bool:
    """Whether `holder` is the first process of this run: Lightning's children have it as parent, others share a launcher."""
    own_child = (holder.get("pid"), holder.get("host")) == (os.getppid(), socket.gethostname())
    return own_child or not holder or (holder.get("group") is not None and holder["group"] == _group())


def _group() -> str | None:
    """What the processes that one torchrun or srun starts have in common; None without a launcher."""
    for names in (("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT"), ("SLURM_JOB_ID", "SLURM_STEP_ID")):
        values = [os.environ.get(name) for name in names]
        if None not in values:
            return ":".join(values)
    return None
