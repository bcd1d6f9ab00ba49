"""Runs that are told to stop: by the scheduler, by Ctrl-C, by their own clock."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread

CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGUSR1": 138}
"""Exit codes, 128 and the signal's number as shells have it."""


class ToldToStop(Exception):
    """Ends a run before its end, what is done kept. Its message is what told it to."""


class Listener:
    """Takes note of SIGTERM, SIGUSR1 and Ctrl-C in `told` instead of dying of them; a second Ctrl-C is one.
    Of the other two, the first is the reason of the end.

    A signal that somebody else listens to already, as a cluster's launcher may, is left to them.
    """

    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    nobody = (signal.SIG_DFL, signal.default_int_handler)

    def __init__(self) -> None:
        self.told: str | None = None
        self.mine: list[int] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        """From here on; before the first step too, so that the processes of a run end together."""
        here = current_thread() is main_thread()
        before = {number: signal.getsignal(number) for number in self.signals if here}
        self.mine = [number for number, handler in before.items() if handler in self.nobody]
        self.listen()
        try:
            yield
        finally:
            for number in self.mine:
                obeyed = self.told is not None and number != signal.SIGINT  # on its way out: srun's SIGTERM must not change the exit code
                signal.signal(number, signal.SIG_IGN if obeyed else before[number])

    def listen(self) -> None:
        """Again, where Lightning has set handlers of its own meanwhile."""
        for number in self.mine:
            signal.signal(number, self._tell)

    def _tell(self, number: int, frame: object) -> None:
        if self.told == "SIGINT" and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.told is None or number == signal.SIGINT:  # srun sends SIGTERM to those still busy obeying its SIGUSR1
            self.told = signal.Signals(number).name
