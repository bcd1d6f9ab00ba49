"""evaluate.py as a command, and what its folder says of the time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

ROOT = Path(__file__).resolve().parent.parent.parent


def environment(root: Path = ROOT) -> dict[str, str]:
    """In which the checkout `root` and the networks of our tests are importable."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(ROOT / "tests" / "support")])}


def evaluate(*overrides: str, root: Path = ROOT) -> float:
    """Run evaluate.py of the checkout `root`; → the seconds from the command to its end. Raises CalledProcessError."""
    started = perf_counter()
    line = [sys.executable, str(root / "evaluate.py"), *overrides]
    done = subprocess.run(line, env=environment(root), capture_output=True, text=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
    done.check_returncode()
    return perf_counter() - started


def records(run: Path) -> list[dict]:
    """The records of a finished run, in order."""
    return [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]


def batch_ends(run: Path, batch_size: int, world: int) -> list[list[float]]:
    """For each of `world` processes, when each of its batches was on disk, in seconds of the clock of files."""
    ids = [record["id"] for record in records(run)]
    batches = [ids[first : first + batch_size] for first in range(0, len(ids), batch_size)]
    return [[max(_written(run, name) for name in batch) for batch in batches[rank::world]] for rank in range(world)]


def _written(run: Path, name: str) -> float:
    return (run / "images" / name / "restoration-0.png").stat().st_mtime


def job_times(jobs: Sequence[Path]) -> list[tuple[float, float]]:
    """(seconds from the end of the job before, seconds of its sampling) of each job of a sweep in one process, from the second on."""
    ended = sorted(((job / "summary.json").stat().st_mtime, job) for job in jobs)
    sampled = [sum(record["seconds"] for record in records(job)) for _, job in ended]
    return [(after[0] - before[0], seconds) for before, after, seconds in zip(ended, ended[1:], sampled[1:], strict=False)]
