"""Files are written while the next images are computed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Background:
    """Calls one after another in a thread of its own, at most one behind; what a call raises is raised by the next or by `wait`."""

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, "writer")
        self.last: Future | None = None

    def __call__(self, function: Callable[[], object]) -> None:
        self.wait()
        self.last = self.thread.submit(function)

    def wait(self) -> None:
        last, self.last = self.last, None
        if last is not None:
            last.result()
