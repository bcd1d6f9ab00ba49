"""The prior of the last job of this process. The next job of a sweep takes it where nothing about it differs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from omegaconf import DictConfig

from diffusion_priors.conf.checks import plain
from diffusion_priors.diffusion.priors.base import Prior


class LastPrior:
    """Loads a prior, or gives the last one again for the same configuration and the same files.

    To read, hash and try out the weights of a large prior takes seconds, which a sweep spends once. The weights do not change
    between the jobs: what is asked of them is computed once too. Memory layout, compilation and recomputation are set on the
    network, so that the configuration of the trainer must be the same.
    """

    def __init__(self) -> None:
        self.key: Any = None
        self.prior: Prior | None = None

    def __call__(self, config: DictConfig, load: Callable[[], Prior]) -> Prior:
        values = [plain(config[group]) for group in ("prior", "tile", "trainer")]
        key = values, {path: stamps(path) for path in texts(values[0])}
        if self.prior is None or key != self.key:
            self.prior = None  # so that its memory is free before another one is loaded
            self.prior = load()
            self.prior.fingerprint = cache(self.prior.fingerprint)  # type: ignore[method-assign]
            self.prior.probe = cache(self.prior.probe)  # type: ignore[method-assign]
            self.key = key
        return self.prior


def texts(value: Any) -> Iterator[str]:
    """The texts in a value of the configuration, among them the paths."""
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from texts(inner)


def stamps(path: str) -> list[tuple[str, int, int]]:
    """(path, size, time of the last change) of a file or of all files in a folder; [] where there is neither."""
    files = [path] if os.path.isfile(path) else [os.path.join(here, name) for here, _, names in os.walk(path) for name in names]
    facts = ((file, os.stat(file)) for file in sorted(files) if os.path.exists(file))
    return [(file, fact.st_size, fact.st_mtime_ns) for file, fact in facts]


last_prior = LastPrior()
