"""A bound on the pixels that threads decode at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class PixelBudget:
    """At most `most` pixels at once; an image with more waits until it is alone."""

    def __init__(self, most: int) -> None:
        self.most, self.used = most, 0
        self.freed = Condition()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        with self.freed:
            self.freed.wait_for(lambda: self.used == 0 or self.used + pixels <= self.most)
            self.used += pixels
        try:
            yield
        finally:
            with self.freed:
                self.used -= pixels
                self.freed.notify_all()
