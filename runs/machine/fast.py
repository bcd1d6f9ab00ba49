"""What `auto` chooses for the trainer: the precision and the compilation that are fast on this machine."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Literal, NamedTuple

import torch

Precision = Literal[32, 16, "bf16"]
AMPERE, VOLTA = (8, 0), (7, 0)
"""The first GPUs with tensor cores for bf16, and the first with any, for float16, which are also the first that Triton compiles for."""


class Chosen(NamedTuple):
    """A value of trainer.precision or trainer.compile, and the reason for it."""

    value: Precision | bool
    reason: str


def choose(given: Mapping[str, object], gpu: bool) -> dict[str, Chosen]:
    """What is fast here, on the GPUs or on the processor, for the `given` settings "precision" and "compile" that are auto."""
    fast = {"precision": fast_precision, "compile": fast_compile}
    return {name: fast[name](gpu) for name, value in given.items() if value == "auto"}


def fast_precision(gpu: bool) -> Chosen:
    if not gpu:
        instructions = bf16_instructions()
        known = Chosen("bf16", f"the processor has {instructions}")
        return known if instructions else Chosen(32, "the processor is not known to have instructions for bf16")
    capability = _oldest_gpu()
    kind = f"a GPU of capability {'.'.join(map(str, capability))}"
    if capability >= AMPERE:
        return Chosen("bf16", f"{kind} has tensor cores for it")
    return Chosen(16, f"{kind} has no tensor cores for bf16") if capability >= VOLTA else Chosen(32, f"{kind} has no tensor cores")


def fast_compile(gpu: bool) -> Chosen:
    if not gpu:
        return Chosen(False, "a processor gains little by it")
    if _oldest_gpu() < VOLTA:
        return Chosen(False, "Triton compiles for newer GPUs")
    return Chosen(True, "there is a GPU") if find_spec("triton") else Chosen(False, "Triton, which compiles for GPUs, is not installed")


def _oldest_gpu() -> tuple[int, int]:
    return min(torch.cuda.get_device_capability(device) for device in range(torch.cuda.device_count()))


def bf16_instructions() -> str | None:
    """The instructions for bf16 that the processor has; None where it has none, and for processors that are not of Intel's kind."""
    if not _of_intels_kind():
        return None
    if torch.cpu._is_amx_tile_supported():
        return "AMX"
    return "AVX512-BF16" if torch.cpu._is_avx512_bf16_supported() else None


def computes_bf16() -> bool:
    """Whether the processor has instructions for bf16. Those that are not of Intel's kind are taken to have them."""
    return not _of_intels_kind() or bf16_instructions() is not None


def _of_intels_kind() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")
