"""Stop requests from the scheduler and from Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread


class StopRequested(Exception):
    """Ends a training run early; what is done is kept. The message says what asked for it."""


class Listener:
    """Records the first SIGTERM or SIGUSR1, or Ctrl-C, in `received` instead of terminating. A second Ctrl-C raises KeyboardInterrupt.

    Signals that already have a handler are left alone: a cluster's launcher may have set it.
    """

    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    defaults = (signal.SIG_DFL, signal.default_int_handler)

    def __init__(self) -> None:
        self.received: str | None = None
        self.mine: list[int] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals inside this block. Start before the first step, so that all processes of a run stop together."""
        in_main_thread = current_thread() is main_thread()
        before = {number: signal.getsignal(number) for number in self.signals if in_main_thread}
        self.mine = [number for number, handler in before.items() if handler in self.defaults]
        self.listen()
        try:
            yield
        finally:
            for number in self.mine:
                # while the process ends, srun's SIGTERM must not change the exit code
                ignored = self.received is not None and number != signal.SIGINT
                signal.signal(number, signal.SIG_IGN if ignored else before[number])

    def listen(self) -> None:
        """Set the handlers again, after Lightning has set its own."""
        for number in self.mine:
            signal.signal(number, self._record)

    def _record(self, number: int, frame: object) -> None:
        if self.received == "SIGINT" and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.received is None or number == signal.SIGINT:  # srun sends SIGTERM to processes that still obey its SIGUSR1
            self.received = signal.Signals(number).name
