"""Names of output folders, made of what was asked for: the same line finds its own run again."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

ROOT = "outputs/evaluate"
UNNAMED = (
    *("output_dir", "overwrite", "trainer", "logger", "callbacks", "batch_size", "objective", "hydra", "report"),
    *("data.workers", "data.freeze"),
    *("metrics.lpips.trunk", "metrics.lpips.download", "metrics.lpips.url"),
)
"""Overrides that do not make it another run, unless they say how precise it is."""
LONGEST = 120
"""Bytes of a name: file systems take 255."""


def job_folder(overrides: Sequence[str]) -> str:
    """["solver=sdedit", "data.root=/a/faces"] → data.root=faces~1a2b,solver=sdedit: sorted, without paths, not too long."""
    named = sorted(override for override in overrides if not _unnamed(override.lstrip("+~").split("=", 1)[0]))
    name = ",".join(_short(override) for override in named) or "default"
    if len(name.encode()) > LONGEST:
        digest = blake2b("\n".join(named).encode(), digest_size=4).hexdigest()
        name = f"{name.encode()[: LONGEST - 9].decode(errors='ignore')}~{digest}"
    return name


def _unnamed(key: str) -> bool:
    return key != "trainer.precision" and any(key == name or key.startswith((f"{name}.", f"{name}/")) for name in UNNAMED)


def _short(override: str) -> str:
    """Without folders and without what a file's name may not hold; a hash tells apart what that makes alike."""
    key, _, value = override.partition("=")
    plain = value.strip("'\"")
    short = os.path.basename(plain.rstrip("/")) if "/" in plain else plain
    short = "".join(c if c.isalnum() or c in "._-+[]" else "_" for c in short)
    if short != plain:
        short += f"~{blake2b(value.encode(), digest_size=2).hexdigest()}"
    return f"{key.replace('/', '.')}={short}"


def sweep_folder(output_dir: str | None, overrides: Sequence[str], swept: Mapping[str, object] | None) -> str:
    """The folder of an experiment that is a sweep: named by the overrides that its jobs share, where it has no other."""
    shared = [override for override in overrides if override.lstrip("+~").split("=", 1)[0] not in (swept or {})]
    return output_dir or f"{ROOT}/{job_folder(shared)}"


def name_sweep(arguments: list[str]) -> None:
    """Give a sweep on the command line (sys.argv) a folder of its own where it has none, made of the whole line as a run's is.

    It is put beside the other overrides: Hydra wants them in one piece.
    """
    at = [i for i, argument in enumerate(arguments) if i and (argument.startswith("~") or ("=" in argument and argument[0] != "-"))]
    overrides = [arguments[i] for i in at]
    if {"-m", "--multirun"} & {*arguments} and not any(override.startswith("output_dir=") for override in overrides):
        arguments.insert(at[-1] + 1 if at else len(arguments), f"output_dir='{ROOT}/{job_folder(overrides)}'")


def sweep_name() -> str | None:
    """The name of the folder that the jobs of this sweep share; None where there is no sweep."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return Path(HydraConfig.get().sweep.dir).resolve().name
