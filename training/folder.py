"""The folder of a training run: found again, compared, written."""

from __future__ import annotations

import csv
import io
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

from diffusion_priors.diffusion.priors.folder import CARD
from diffusion_priors.runs.config import differences, refuse
from diffusion_priors.runs.files import write_whole
from diffusion_priors.training.checkpoints import CheckpointFolder, read_whole

FREE = (
    "steps",
    "trainer",
    "accumulate",
    "validation",
    "export",
    "logger",
    "transition",  # of the validation's samples
    "checkpoint_every",
    "keep_checkpoints",
    "log_every",
    "max_hours",
    "output_dir",
    "overwrite",
    "data.cache",
    "data.workers",
)
"""What may change between a run and the one that goes on from it: nothing that decides what is learned, but its length."""


@dataclass(frozen=True)
class Found:
    """The newest good checkpoint, its step, and the newer ones that are damaged."""

    step: int
    path: Path
    damaged: list[Path]


class TrainingFolder:
    """config.yaml, metrics.csv, skipped.csv, validation/step-…/, checkpoints/ and prior/ under `root`."""

    def __init__(self, root: Path, keep_checkpoints: int = 2) -> None:
        self.root = root
        self.config, self.metrics, self.skipped = root / "config.yaml", root / "metrics.csv", root / "skipped.csv"
        self.validation, self.prior = root / "validation", root / "prior"
        self.checkpoints = CheckpointFolder(root / "checkpoints", keep_checkpoints)

    def exported(self, steps: int) -> bool:
        """Whether the prior here is that of `steps` steps; a shorter run may have left one too."""
        try:
            return yaml.safe_load((self.prior / CARD).read_text(encoding="utf-8"))["training"]["steps"] == steps
        except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError):
            return False

    def find(self, config: dict, steps: int) -> Found | None:
        """Where to go on, for a run of `steps` with this resolved configuration; None where there is no run yet.

        Raises ValueError where the run here is another, longer than wanted, or has no good checkpoint left, and
        PermissionError where nothing can be written.
        """
        nearest = next(p for p in (self.root, *self.root.resolve().parents) if p.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            raise PermissionError(f"cannot write to {nearest}; set output_dir to a folder that can be written")
        checkpoints = self.checkpoints.all()
        if not checkpoints:
            return None
        refuse(self.root, differences(self.config, config, FREE))
        damaged = []
        for step, path in checkpoints:
            if read_whole(path) is None:
                damaged.append(path)
                continue
            if step > steps:
                raise ValueError(f"the run in {self.root} is at step {step} already, steps={steps} is less; set steps={step} or more")
            return Found(step, path, damaged)
        raise ValueError(f"every checkpoint in {self.checkpoints.root} is damaged; overwrite=true begins anew")

    def open(self, text: str, skipped: list[tuple[str, str]], overwrite: bool) -> None:
        """Write config.yaml and the list of skipped images; with `overwrite`, what an earlier run left here goes."""
        if overwrite:
            for folder in (self.validation, self.prior, self.checkpoints.root):
                shutil.rmtree(folder, ignore_errors=True)
            self.metrics.unlink(missing_ok=True)
        for partial in self.checkpoints.root.glob(".step-*"):  # of a process that was killed while it wrote
            partial.unlink(missing_ok=True)
        write_whole(self.config, lambda stream: stream.write(text.encode()))
        if skipped:
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([("image", "reason"), *skipped])
            write_whole(self.skipped, lambda stream: stream.write(text.getvalue().encode(errors="surrogateescape")))
        else:
            self.skipped.unlink(missing_ok=True)
