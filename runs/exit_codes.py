"""The exit codes of every script. Signals have 128 and their number, as in a shell."""

from __future__ import annotations

FAILED = 1
"""Some restorations failed, or an error was raised."""
REFUSED = 2
"""The command, its input, the machine or the output folder does not allow the run."""
TIMED_OUT = 124
"""The run reached its own time limit."""
SIGINT, SIGUSR1, SIGTERM = 130, 138, 143
"""The run was stopped by Ctrl-C or by the scheduler."""
BROKEN_PIPE = 141
"""Nobody reads the output any more."""

OF_SIGNAL = {"SIGINT": SIGINT, "SIGTERM": SIGTERM, "SIGUSR1": SIGUSR1}
STOPPED = (TIMED_OUT, *OF_SIGNAL.values())
"""Codes of runs that were asked to stop: a sweep stops with them."""
