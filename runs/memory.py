"""What this machine can take: the memory that a run needs, so that it is refused before the kernel kills it, and processes."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import torch
from torch import Tensor, nn


def activation_bytes(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """The bytes that one image of `shape` (C, H, W) keeps for the backward pass, each storage counted once."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    device = next(network.parameters()).device
    kept: list[Tensor] = []
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        network(torch.zeros(1, *shape, device=device), torch.zeros(1, dtype=torch.long, device=device))
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
    return sum(size for pointer, size in storages.items() if pointer not in weights)


def free_bytes() -> int | None:
    """The memory that is free on this machine and in this process's control group; None where it is unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError):  # no control group, or "max" for no limit
        return free
    return min(free, limit - used)


def peak_mib(device: torch.device) -> float:
    """The largest memory this process has used so far, in MiB: of its GPU where it computes on one, else of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:  # on Linux getrusage counts the parent's memory at the start of this process too
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**10
    except (OSError, StopIteration, ValueError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def cores() -> int:
    """The CPU cores that this process may use: a scheduler may allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_workers(count: int, name: str) -> None:
    """Raises ValueError, which names the setting `name`, for a number of reading processes that would only stand in each other's way."""
    most = max(16, 2 * cores())
    if not 0 <= count <= most:
        raise ValueError(f"{name}={count} is not between 0 and {most}, for a machine with {cores()} cores; set {name}={min(cores(), 8)}")
