"""How many processes this machine can take."""

from __future__ import annotations

import os


def cores() -> int:
    """The CPU cores that this process may use: a scheduler may allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_workers(count: int, name: str) -> None:
    """Raises ValueError, which names the setting `name`, for a number of reading processes that would only stand in each other's way."""
    most = max(16, 2 * cores())
    if not 0 <= count <= most:
        raise ValueError(f"{name}={count} is not between 0 and {most}, for a machine with {cores()} cores; set {name}={min(cores(), 8)}")
