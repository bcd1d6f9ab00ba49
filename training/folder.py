"""The folder of a training run: what it holds, whether a run may resume in it, and how it is opened."""

from __future__ import annotations

import csv
import io
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from diffusion_priors.diffusion.priors.folder import CARD
from diffusion_priors.runs.config import differences, refuse
from diffusion_priors.runs.files import delete_partial, write_whole
from diffusion_priors.runs.reading.foreign import read_yaml
from diffusion_priors.training.checkpoints import CheckpointFolder, read_whole
from diffusion_priors.training.journal import rows_of

MAY_DIFFER_ON_RESUME = (
    "steps",
    "trainer",
    "accumulate",
    "validation",
    "export",
    "logger",
    "sampler",  # of the samples drawn in validation
    "checkpoint_every",
    "keep_checkpoints",
    "log_every",
    "max_hours",
    "output_dir",
    "overwrite",
    "data.cache",
    "data.workers",
)
"""Keys that may differ when a run is resumed: the length of the run, and whatever does not affect what is learned."""


@dataclass(frozen=True)
class Found:
    """The newest intact checkpoint, its step, and the newer ones that are damaged."""

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
        """Whether this folder holds the prior of `steps` steps. A shorter run may have exported another one."""
        try:
            return read_yaml(self.prior / CARD)["training"]["steps"] == steps
        except (OSError, ValueError, TypeError, KeyError):
            return False

    def validated(self, step: int) -> bool:
        """Whether metrics.csv has the values of the validation after `step`."""
        return any(row["step"] == str(step) and row.get("val_loss") for row in rows_of(self.metrics))

    def find(self, config: dict, steps: int) -> Found | None:
        """The checkpoint from which a run of `steps` with this resolved configuration resumes; None where there is none yet.

        Raises ValueError if the run here has other settings, has more than `steps` steps, or has no intact checkpoint.
        Raises PermissionError if the folder cannot be written.
        """
        nearest = next(p for p in (self.root, *self.root.resolve().parents) if p.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            raise PermissionError(f"cannot write to {nearest}; set output_dir to a writable folder")
        checkpoints = self.checkpoints.all()
        if not checkpoints:
            return None
        refuse(self.root, differences(self.config, config, MAY_DIFFER_ON_RESUME))
        damaged = []
        for step, path in checkpoints:
            if read_whole(path) is None:
                damaged.append(path)
                continue
            if step > steps:
                raise ValueError(f"the run in {self.root} is already at step {step}, steps={steps} is less; set steps={step} or more")
            return Found(step, path, damaged)
        raise ValueError(f"every checkpoint in {self.checkpoints.root} is damaged; set overwrite=true to restart")

    def open(self, text: str, skipped: list[tuple[str, str]], overwrite: bool) -> None:
        """Write config.yaml and the list of skipped images. With `overwrite`, first delete what an earlier run left here."""
        if overwrite:
            for folder in (self.validation, self.prior, self.checkpoints.root):
                shutil.rmtree(folder, ignore_errors=True)
            self.metrics.unlink(missing_ok=True)
        for folder in (self.root, self.checkpoints.root, self.prior, *self.validation.glob("step-*")):
            delete_partial(folder)
        write_whole(self.config, lambda stream: stream.write(text.encode()))
        if skipped:
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([("image", "reason"), *skipped])
            write_whole(self.skipped, lambda stream: stream.write(text.getvalue().encode(errors="surrogateescape")))
        else:
            self.skipped.unlink(missing_ok=True)
