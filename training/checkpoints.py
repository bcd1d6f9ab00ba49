"""Checkpoints of a training run: whole or not at all, the newest good one found again."""

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
    """step-00001000.ckpt, … in `root`; the newest `keep` of them stay."""

    def __init__(self, root: Path, keep: int = 2) -> None:
        self.root, self.keep = root, keep

    def all(self) -> list[tuple[int, Path]]:
        """(step, file), newest first."""
        found = [(int(match[1]), path) for path in self.root.glob("step-*.ckpt") if (match := NAME.fullmatch(path.name))]
        return sorted(found, reverse=True)

    def path(self, step: int) -> Path:
        return self.root / f"step-{step:08d}.ckpt"

    def read(self, step: int) -> dict:
        """The checkpoint of `step`. Raises ValueError where it is missing or damaged."""
        content = read_whole(self.path(step))
        if content is None:
            raise ValueError(f"{self.path(step)} is missing or damaged; the same line trains on from an earlier one")
        return content

    def save(self, trainer: pl.Trainer) -> None:
        """Write a checkpoint of the step just done, then let the oldest go. Every rank has to call it."""
        trainer.save_checkpoint(self.path(trainer.global_step))
        if trainer.is_global_zero:
            newer = [path for step, path in self.all() if step > trainer.global_step]  # damaged: the run went on from before them
            older = [path for step, path in self.all() if step <= trainer.global_step]
            for path in newer + older[self.keep :]:
                path.unlink()


class WholeFiles(TorchCheckpointIO):
    """How Lightning writes its checkpoints: under a temporary name in the same folder, then renamed."""

    def save_checkpoint(self, checkpoint: dict, path: str | Path, storage_options: object = None) -> None:
        def write(stream: BinaryIO) -> None:
            try:
                torch.save(checkpoint, stream)
            except RuntimeError as error:  # how torch tells of a full disk
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from error
                raise

        write_whole(Path(path), write)


def read_whole(path: Path) -> dict | None:
    """A training checkpoint's content, none of its code run, or None where the file is damaged: its CRCs are checked."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return None
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # whatever a damaged file may bring about
        return None
    return content if isinstance(content, dict) and "state_dict" in content else None
