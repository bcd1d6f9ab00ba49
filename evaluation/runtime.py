"""Where and in which precision a run computes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn


class Runtime:
    """`device` auto takes a GPU where there is one. `precision` is the network's alone; states stay float32.

    `channels_last` lays the network's convolutions out pixel by pixel, faster on CPUs and tensor cores.
    `compile` hands the network to torch.compile (minutes at first, for long runs). `threads` bounds CPU threads.

    Raises ValueError for a GPU that is not there, or fewer than one thread.
    """

    def __init__(
        self,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        precision: Literal[32, 16, "bf16"] = 32,
        channels_last: bool = True,
        compile: bool = False,
        threads: int | None = None,
    ) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError("runtime.device=cuda, but torch sees no CUDA device here; use runtime.device=cpu or auto")
        if threads is not None and threads < 1:
            raise ValueError(f"a run needs at least one thread, got {threads}; set runtime.threads")
        self.gpu = torch.cuda.is_available() if device == "auto" else device == "cuda"
        self.autocast = {32: None, 16: torch.float16, "bf16": torch.bfloat16}[precision]
        self.channels_last, self.compile, self.threads = channels_last, compile, threads

    @property
    def accelerator(self) -> str:
        return "gpu" if self.gpu else "cpu"

    def prepare(self, network: nn.Module) -> nn.Module:
        """The network as this runtime wants it."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.channels_last:
            network = network.to(memory_format=torch.channels_last)
        return torch.compile(network) if self.compile else network
