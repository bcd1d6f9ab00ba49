"""What a run keeps and shows of its configuration and command line: plain values, without the secrets in addresses."""

from __future__ import annotations

import logging
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from diffusion_priors.runs.printable import printable, without_home, without_secrets


def kept(config: DictConfig) -> dict:
    """The resolved configuration as plain values. Its addresses have *** for users, passwords and queries, its paths ~ for the home."""
    return without_home(_without_secrets(OmegaConf.to_container(config, resolve=True)))


def overrides() -> list[str]:
    """The overrides of this job as they were written: interpolations such as ${oc.env:NAME} are not resolved."""
    return OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)


def kept_overrides() -> list[str]:
    """The overrides as they may be kept and shown."""
    return [without_home(without_secrets(override)) for override in overrides()]


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_secrets(inner) for inner in value]
    return without_secrets(value) if isinstance(value, str) else value


class WithoutSecrets(logging.Formatter):
    """Of Hydra's own log lines, which show the overrides of each job of a sweep."""

    def format(self, record: logging.LogRecord) -> str:
        lines = without_secrets(super().format(record)).replace("\t", " ").split("\n")
        return "\n".join(map(printable, lines))
