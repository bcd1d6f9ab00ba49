"""What a table of timings is of, the processor or GPU with its cores and the version of torch, and its clock."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch


def processor() -> str:
    """Its name as the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def machine(device: torch.device) -> str:
    """Its name, its threads and the version of torch."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    threads, cores = torch.get_num_threads(), os.cpu_count()
    instructions = torch.backends.cpu.get_cpu_capability()
    return f"{processor()} ({instructions}), {threads} threads on {cores} cores, torch {torch.__version__}"


def footnote(device: torch.device) -> str:
    """The line below a table: the machine, and how much others use it."""
    return f"{machine(device)}, load {os.getloadavg()[0]:.1f}"


PRECISIONS = {"32": None, "bf16": torch.bfloat16, "16": torch.float16}
"""The name of a precision → the dtype of autocast, None without it."""


def now(device: torch.device) -> float:
    """Seconds, after whatever the device still computes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter()


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """How long a run takes."""
    started = now(device)
    run()
    return now(device) - started
