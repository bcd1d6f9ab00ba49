"""What every script's main shares: one clear line and an exit code instead of a traceback.

Nothing heavy is imported here, so that --help and the shell's completion answer at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

USAGE, FAILED, INTERRUPTED = 2, 1, 130
TRACEBACK = "HYDRA_FULL_ERROR"


class Stop(Exception):
    """Ends the script with `message` on standard error and exit code `code`."""

    def __init__(self, message: str, code: int = USAGE) -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def refusing() -> Iterator[None]:
    """Bad input raises ValueError or OSError, with a message for a person: inside this, that ends the script with 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise Stop(one_line(error)) from error


def command(main: Callable[[], None]) -> None:
    """Run a Hydra main. HYDRA_FULL_ERROR=1 in the environment gives tracebacks instead of lines."""
    wants_traceback = os.environ.get(TRACEBACK) == "1"
    os.environ[TRACEBACK] = "1"  # Hydra then raises instead of printing and exiting with 1
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except (Stop, HydraException, OmegaConfBaseException) as error:
        if wants_traceback:
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(getattr(error, "code", USAGE))


def one_line(error: BaseException) -> str:
    """An error's message on one line; Hydra's and OmegaConf's span several."""
    lines = [line.strip() for line in str(error).splitlines()]
    kept = [line for line in lines if line and not line.startswith(("object_type=", "reference_type="))]
    return "; ".join(kept) or type(error).__name__
