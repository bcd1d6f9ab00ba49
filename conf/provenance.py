"""What made a run: the text of its config.yaml."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from diffusion_priors.conf import PROJECT
from diffusion_priors.conf.kept import kept, kept_overrides
from diffusion_priors.runs.printable import command_of


def config_text(config: DictConfig, script: str, weights: str | None = None) -> str:
    """The text of config.yaml: the configuration and the command of `script` without secrets, versions, the hash of the weights."""
    hydra_config = HydraConfig.get()
    overrides = kept_overrides()
    content = {
        "config": kept(config),
        "choices": OmegaConf.to_container(hydra_config.runtime.choices),
        "overrides": overrides,
        "command": " ".join([command_of(script.removesuffix(".py")), *overrides]),
        "weights": weights,
        "source": source_state(PROJECT),
    }
    return OmegaConf.to_yaml(OmegaConf.create(content))


def chosen() -> dict[str, str]:
    """The names of the chosen options by group, as in {"solver": "dps"}, without those of Hydra itself."""
    choices = HydraConfig.get().runtime.choices
    return {group: option for group, option in choices.items() if option is not None and not group.startswith("hydra/")}


@cache
def source_state(root: Path) -> dict[str, Any]:
    """Versions and the git commit of the project, as the first job of this process found them."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    packages = ("diffusion-priors", "torch", "torchvision", "pytorch-lightning", "hydra-core", "torchmetrics", "lpips")
    status = git("status", "--porcelain")
    return {
        "python": platform.python_version(),
        "packages": {name: installed(name) for name in packages},
        "git": {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)},
    }
