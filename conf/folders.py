"""Names of output folders, made of the overrides: the same command finds its own run again.

Hydra is imported where it is asked, so that the Python interface loads none of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from diffusion_priors.conf.errors import Stop
from diffusion_priors.runs.printable import without_secrets

ROOT = "outputs/evaluate"
CHANGES_NO_RESULT = (
    *("output_dir", "overwrite", "repair", "trainer", "logger", "callbacks", "batch_size", "objective", "hydra", "report"),
    *("data.workers", "data.freeze"),
    *("metrics.lpips.trunk", "metrics.lpips.download", "metrics.lpips.url"),
)
"""Overrides that change no result, and so no name. Only trainer.precision does."""
LONGEST = 120
"""Bytes of a name; file systems allow 255."""


def job_folder(overrides: Sequence[str]) -> str:
    """["solver=sdedit", "data.root=/a/faces"] → data.root=faces~1a2b,solver=sdedit: sorted, without paths, and of limited length."""
    if OmegaConf.is_list(overrides):  # as a yaml of ours names them, whose interpolations Hydra has not resolved
        overrides = OmegaConf.to_container(overrides, resolve=False)
    named = sorted(override for override in overrides if not _changes_no_result(override.lstrip("+~").split("=", 1)[0]))
    name = ",".join(_short(override) for override in named) or "default"
    if len(name.encode()) > LONGEST:
        digest = blake2b("\n".join(named).encode(), digest_size=4).hexdigest()
        name = f"{name.encode()[: LONGEST - 9].decode(errors='ignore')}~{digest}"
    return name


def _changes_no_result(key: str) -> bool:
    return key != "trainer.precision" and any(key == name or key.startswith((f"{name}.", f"{name}/")) for name in CHANGES_NO_RESULT)


def _short(override: str) -> str:
    """The override without folders and special characters. Where they are dropped, a hash keeps different values apart."""
    key, _, value = override.partition("=")
    plain = value.strip("'\"")
    short = without_secrets(plain)
    short = os.path.basename(short.rstrip("/")) if "/" in short else short
    short = "".join(c if c.isalnum() or c in "._-+[]" else "_" for c in short)
    if short != plain:
        short += f"~{blake2b(value.encode(), digest_size=2).hexdigest()}"
    return f"{key.replace('/', '.')}={short}"


def sweep_folder(output_dir: str | None, overrides: Sequence[str], swept: Mapping[str, object] | None) -> str:
    """The folder of an experiment that is a sweep: `output_dir`, or a name made of the overrides that its jobs share."""
    if OmegaConf.is_list(overrides):
        overrides = OmegaConf.to_container(overrides, resolve=False)
    shared = [override for override in overrides if override.lstrip("+~").split("=", 1)[0] not in (swept or {})]
    return output_dir or f"{ROOT}/{job_folder(shared)}"


def name_sweep(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command (sys.argv), with an output_dir for a sweep that has none, named as a run's folder is.

    It stands among the other overrides, because Hydra takes them in one piece only.
    """
    at = [i for i, argument in enumerate(arguments) if i and (argument.startswith("~") or ("=" in argument and argument[0] != "-"))]
    overrides = [arguments[i] for i in at]
    if not {"-m", "--multirun"} & {*arguments} or any(override.startswith("output_dir=") for override in overrides):
        return list(arguments)
    place = at[-1] + 1 if at else len(arguments)
    return [*arguments[:place], f"output_dir='{ROOT}/{job_folder(overrides)}'", *arguments[place:]]


def output_folder(output_dir: str | None) -> Path:
    """The folder of this run: a sweep's job has its own; otherwise output_dir, or a name made of the overrides."""
    from hydra.core.hydra_config import HydraConfig

    hydra_config = HydraConfig.get()
    if _in_sweep(hydra_config):
        return Path(hydra_config.runtime.output_dir)
    return Path(output_dir or f"{ROOT}/{job_folder(hydra_config.overrides.task)}")


def two_runs(config: DictConfig) -> tuple[Path, Path]:
    """The folders of compare=[DIR1,DIR2]. Raises Stop for anything else."""
    given = OmegaConf.to_container(config)["compare"]
    if not isinstance(given, list) or len(given) != 2 or not all(isinstance(one, str) and one for one in given):
        raise Stop(f"compare={given} does not name two runs; give two folders, as in compare=[DIR1,DIR2]")
    return Path(given[0]), Path(given[1])


def shares_sweep_process() -> bool:
    """Whether this job runs in the process of its sweep, which Lightning would start again as a whole."""
    from hydra.core.hydra_config import HydraConfig

    hydra_config = HydraConfig.get()
    return _in_sweep(hydra_config) and hydra_config.launcher._target_.endswith("BasicLauncher")


def sweep_name() -> str | None:
    """The name of this sweep's folder; None outside a sweep."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized() or not _in_sweep(HydraConfig.get()):
        return None
    return Path(HydraConfig.get().sweep.dir).resolve().name


def _in_sweep(hydra_config: DictConfig) -> bool:
    from hydra.types import RunMode

    return hydra_config.mode == RunMode.MULTIRUN
