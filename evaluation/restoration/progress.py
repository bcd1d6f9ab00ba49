"""Progress of a run: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
from time import monotonic
from typing import TextIO

from torch import nn
from tqdm import tqdm

from diffusion_priors.solvers.base import Problem, Progress


class ProgressReport:
    """Called after every step of `batches` batches. Off a terminal it prints a line every `every` seconds.

    `terminal` says whether `stream` redraws a line, as terminals and notebooks do; None: as the stream says.
    The residual is fetched only a few times a second, since each look waits for the device. It is left out for solvers
    that use no measurement. Where a network that is watched sees the image in tiles, those of a step are shown too, until `close`.
    """

    def __init__(
        self, batches: int, every: float = 10.0, stream: TextIO = sys.stderr, residual: bool = True, terminal: bool | None = None
    ) -> None:
        self.batches, self.stream, self.residual = batches, stream, residual
        self.terminal = stream.isatty() if terminal is None else terminal
        self.every = 0.2 if self.terminal else every
        self.bar: tqdm | None = None
        self.watched: list[nn.Module] = []
        self.batch = self.done = self.step = 0
        self.started = self.looked = monotonic()

    def __call__(self, problem: Problem, progress: Progress) -> None:
        if progress.index == 0:
            self.batch += 1
        self.done += 1
        self.step = (progress.index + 1) % progress.total
        now, total = monotonic(), self.batches * progress.total
        if now - self.looked < self.every and self.done < total:
            return
        self.looked = now
        facts = [f"residual {problem.measurement.rms_residual(progress.x0).nanmean().item():.4f}"] if self.residual else []
        if self.terminal:
            self._bar(total).set_postfix_str(", ".join(facts), refresh=False)
            self.bar.update(self.done - self.bar.n)
        elif self.done < total:
            left = (now - self.started) / self.done * (total - self.done)
            where = f"batch {self.batch}/{self.batches}, step {progress.index + 1}/{progress.total}"
            print(", ".join([where, *facts, f"{left:.0f} s left"]), file=self.stream, flush=True)

    def watch(self, network: nn.Module) -> None:
        self.watched = [module for module in network.modules() if hasattr(module, "after_tile")]
        for module in self.watched:
            module.after_tile = self.tile

    def tile(self, number: int, tiles: int) -> None:
        """Called after every tile of a step."""
        if monotonic() - self.looked < self.every:
            return
        self.looked = monotonic()
        if self.terminal:
            self._bar(None).set_postfix_str(f"tile {number}/{tiles}")
        else:
            print(f"step {self.step + 1}, tile {number}/{tiles}", file=self.stream, flush=True)

    def _bar(self, total: int | None) -> tqdm:
        """The bar; how many steps it has is known after the first one."""
        if self.bar is None:
            self.bar = tqdm(total=total, unit="step", file=self.stream, dynamic_ncols=True)
        self.bar.total = total or self.bar.total
        return self.bar

    def close(self) -> None:
        for module in self.watched:
            module.after_tile = None
        if self.bar is not None:
            self.bar.close()
