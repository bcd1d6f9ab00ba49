"""The errors of a configuration: one line that says what was wrong, the value seen, and the override that fixes it.

Nothing of Hydra is imported here: the Python interface (api/) checks its settings with the same words.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from diffusion_priors.runs.exit_codes import REFUSED
from diffusion_priors.runs.printable import printable, without_secrets

NO_MEMORY = ("can't allocate memory", "out of memory", "Storage size calculation overflowed", "not enough memory")
"""How torch says that a tensor is too large for this machine."""
LONGEST = 580
"""Characters of a message. The middle of a longer one is left out: it ends with the advice."""


class Stop(Exception):
    """Ends the script with `message` on standard error and exit code `code`."""

    def __init__(self, message: str, code: int = REFUSED) -> None:
        super().__init__(message)
        self.code = code


class NotApplicableStop(Stop):
    """The solver cannot be used with this operator, noise model or sampler. In a sweep that is no failure."""


@contextmanager
def refusing() -> Iterator[None]:
    """Turn ValueError and OSError, which bad input raises, and a lack of memory into a Stop with exit code 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise Stop(one_line(error)) from error
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in NO_MEMORY):
            raise
        raise Stop("this needs more memory than there is; choose smaller images, a smaller operator or network, or batch_size=1") from error


def one_line(error: BaseException) -> str:
    """The message of an error on one line. Those of Hydra and OmegaConf have several."""
    cause = error.__cause__
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and isinstance(cause.parent_node, DictConfig):
        if not cause.parent_node:  # null, or nothing in it
            return f"{cause.full_key} cannot be set, because {cause.full_key.rpartition('.')[0]} is null"
        return f"{cause.full_key} is unknown; known here: {', '.join(map(str, cause.parent_node))}"
    lines = [line.strip() for line in str(error).splitlines()]
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is not set; add {error.full_key}=VALUE"
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        lines = [f"{error.full_key}: {lines[0]}"]
    text = " ".join(line for line in lines if line and not line.startswith(("object_type=", "reference_type=")))
    text = printable(without_secrets(text)) or type(error).__name__
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 203]} … {text[-200:]}"
