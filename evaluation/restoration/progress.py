"""Progress of a run: a bar on a terminal, a line every so often elsewhere."""

from __future__ import annotations

import sys
from time import monotonic
from typing import TextIO

from tqdm import tqdm

from diffusion_priors.solvers.base import Problem, Progress


class ProgressReport:
    """Called after every step; looks at the numbers only a few times a second, since each look waits for the device.

    `batches` is how many batches the run has. Off a terminal a line is printed every `every` seconds.
    """

    def __init__(self, batches: int, every: float = 10.0, stream: TextIO = sys.stderr) -> None:
        self.batches, self.stream = batches, stream
        self.terminal = stream.isatty()
        self.every = 0.2 if self.terminal else every
        self.bar: tqdm | None = None
        self.batch = self.done = 0
        self.started = self.looked = monotonic()

    def __call__(self, problem: Problem, progress: Progress) -> None:
        if progress.index == 0:
            self.batch += 1
        self.done += 1
        now = monotonic()
        if now - self.looked < self.every and self.done < self.batches * progress.total:
            return
        self.looked = now
        residual = problem.misfit(progress.x0).nanmean().item()
        if self.terminal:
            self._bar(progress.total).set_postfix_str(f"residual {residual:.4f}", refresh=False)
            self.bar.update(self.done - self.bar.n)
        elif self.done < self.batches * progress.total:
            left = (now - self.started) / self.done * (self.batches * progress.total - self.done)
            where = f"batch {self.batch}/{self.batches}, step {progress.index + 1}/{progress.total}"
            print(f"{where}, residual {residual:.4f}, {left:.0f} s left", file=self.stream, flush=True)

    def _bar(self, total: int) -> tqdm:
        if self.bar is None:
            self.bar = tqdm(total=total * self.batches, unit="step", file=self.stream, dynamic_ncols=True)
        return self.bar

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
