"""Checkpoints of a training run: written whole or not at all, verified when read."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import BinaryIO

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from diffusion_priors.runs.files import write_whole

NAME = re.compile(r"step-(\d+)\.ckpt")


class CheckpointFolder:
    """The files step-00001000.ckpt, … in `root`. The newest `keep` of them are kept."""

    def __init__(self, root: Path, keep: int = 2) -> None:
        self.root, self.keep = root, keep

    def all(self) -> list[tuple[int, Path]]:
        """(step, file) of every checkpoint, newest first."""
        found = [(int(match[1]), path) for path in self.root.glob("step-*.ckpt") if (match := NAME.fullmatch(path.name))]
        return sorted(found, reverse=True)

    def path(self, step: int) -> Path:
        return self.root / f"step-{step:08d}.ckpt"

    def read(self, step: int) -> dict:
        """The checkpoint of `step`. Raises ValueError where it is missing or damaged."""
        content = read_whole(self.path(step))
        if content is None:
            raise ValueError(f"{self.path(step)} is missing or damaged; run the same command again to resume from an earlier one")
        return content

    def save(self, trainer: pl.Trainer) -> None:
        """Write a checkpoint of the step just completed, then delete the old ones. Every rank has to call this."""
        trainer.save_checkpoint(self.path(trainer.global_step))
        if trainer.is_global_zero:
            newer = [path for step, path in self.all() if step > trainer.global_step]  # damaged: the run resumed from an earlier one
            older = [path for step, path in self.all() if step <= trainer.global_step]
            for path in newer + older[self.keep :]:
                path.unlink()


class WholeFiles(TorchCheckpointIO):
    """Write Lightning's checkpoints under a temporary name in the same folder, then rename them."""

    def save_checkpoint(self, checkpoint: dict, path: str | Path, storage_options: object = None) -> None:
        def write(stream: BinaryIO) -> None:
            try:
                torch.save(checkpoint, stream)
            except RuntimeError as error:  # torch wraps the error of a full disk
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from error
                raise

        write_whole(Path(path), write)


def read_whole(path: Path) -> dict | None:
    """The content of a training checkpoint, or None for a damaged file. Checks the CRCs and runs no code from the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return None
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # noqa: BLE001 - a damaged file may raise anything
        return None
    return content if isinstance(content, dict) and "state_dict" in content else None
