"""The jobs of a sweep: the runs found below its folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from diffusion_priors.evaluation.reporting.finished_run import FinishedRun, read_run
from diffusion_priors.runs.layout import CONFIG, ERROR, NOT_APPLICABLE, RECORDS, SUMMARY


def read_jobs(root: Path) -> list[FinishedRun]:
    """Every job below `root`, sorted by folder. Never raises: a damaged job is a failed one that says why."""
    return [job for folder in _folders(root) if _is_ours(job := read_run(folder))]


def _folders(root: Path) -> Iterator[Path]:
    """The folders below `root` that may be a job's. Hidden folders and the folders inside a job are skipped."""
    for here, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if Path(here) != root and not {CONFIG, ERROR, NOT_APPLICABLE}.isdisjoint(files):
            folders.clear()
            yield Path(here)


def _is_ours(job: FinishedRun) -> bool:
    """Whether config.yaml was written by this project: another program's has no key `config`, and none of our files is next to it."""
    ours = (SUMMARY, ERROR, NOT_APPLICABLE, RECORDS)
    return not job.settings or "config" in job.settings or any((job.folder / name).exists() for name in ours)
