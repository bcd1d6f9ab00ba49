"""Dashboards: where a run's figures and pictures go besides its own folder."""

from __future__ import annotations

import os
from hashlib import blake2b
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Literal

from pytorch_lightning.loggers import Logger, WandbLogger


class NoLogger:
    """Nowhere else."""

    def __call__(self, folder: Path, config: dict) -> list[Logger]:
        return []

    def finish(self, code: int) -> None:
        pass


class Wandb:
    """Weights & Biases, its files in the run's folder. `mode` auto is online with an account's key and offline without.

    A run that is gone on with keeps its id, so that its parts are one in the dashboard (`wandb sync --append` for
    offline ones).
    """

    def __init__(
        self,
        project: str = "diffusion-priors",
        name: str | None = None,
        group: str | None = None,
        entity: str | None = None,
        mode: Literal["auto", "online", "offline"] = "auto",
    ) -> None:
        self.project, self.name, self.group, self.entity, self.mode = project, name, group, entity, mode

    def __call__(self, folder: Path, config: dict) -> list[Logger]:
        """The logger of the run in `folder`, whose resolved configuration, plain values, is `config`."""
        folder.mkdir(parents=True, exist_ok=True)
        online = self.mode == "online" or (self.mode == "auto" and has_key())
        identity = blake2b(str(folder.resolve()).encode(), digest_size=8).hexdigest()
        name = self.name or folder.name
        logger = WandbLogger(
            project=self.project,
            name=name,
            group=self.group,
            entity=self.entity,
            offline=not online,
            id=identity,
            save_dir=folder,
            config=config,
        )
        return [logger]

    def finish(self, code: int) -> None:
        """Close the run, so that a sweep's next job begins one of its own."""
        import wandb  # slow to import, and sample.py comes by here too

        if wandb.run is not None:
            wandb.finish(code)


def has_key() -> bool:
    """Whether this machine has a key for Weights & Biases: WANDB_API_KEY, or one that `wandb login` left."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc().authenticators("api.wandb.ai") is not None
    except (OSError, NetrcParseError):
        return False
