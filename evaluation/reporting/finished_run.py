"""The jobs of a sweep, read back from their folders."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired

import yaml
from pydantic import FiniteFloat, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from diffusion_priors.evaluation.statistics import Estimate
from diffusion_priors.runs.config import CONFIG, flat
from diffusion_priors.runs.records import read_records

MADE_BY_A_JOB = ("summary.json", "error.txt", "records.jsonl")


class _Estimate(TypedDict):
    mean: FiniteFloat
    se: FiniteFloat | None
    low: FiniteFloat | None
    high: FiniteFloat | None
    n: int


class _Cost(TypedDict):
    nfe_forward: FiniteFloat | None
    nfe_vjp: FiniteFloat | None
    seconds: _Estimate | None
    peak_memory_mib: FiniteFloat | None


class _Summary(TypedDict):
    """What is read of a summary.json; more may stand in it."""

    complete: bool
    images: int
    records: int
    failed: int
    first_failure: NotRequired[str | None]
    metrics: list[str]
    statistics: dict[str, dict[str, _Estimate | None] | None]
    cost: _Cost
    measurements: str | None
    footnote: str | None


SUMMARY = TypeAdapter(_Summary)


@dataclass(frozen=True)
class Job:
    """One job: `config` flat, solver.zeta → 1.0; `choices` group → option; exactly one of `summary` and `error` is None.

    `error` is one line that says why there is no summary to trust.
    """

    folder: Path
    config: dict[str, Any]
    choices: dict[str, str]
    summary: dict[str, Any] | None
    error: str | None

    def estimate(self, block: str, metric: str) -> Estimate | None:
        """A metric in `block` (single, posterior_mean, best_of_n, measurement), None where it has no value."""
        found = self.summary and (self.summary["statistics"].get(block) or {}).get(metric)
        return Estimate(**found) if found else None

    def cost(self, name: str) -> float | None:
        """nfe_forward, nfe_vjp, peak_memory_mib."""
        return self.summary and self.summary["cost"][name]

    @property
    def seconds(self) -> Estimate | None:
        found = self.summary and self.summary["cost"]["seconds"]
        return Estimate(**found) if found else None

    @property
    def measurements(self) -> str | None:
        """Which measurements were restored, as a hash."""
        return self.summary and self.summary["measurements"]

    def records(self) -> list[dict]:
        """What is known of each image and sample; nothing where the file is damaged."""
        try:
            return read_records(self.folder)
        except (OSError, ValueError, KeyError, TypeError):
            return []


def read_jobs(root: Path) -> list[Job]:
    """Every job under `root`, sorted by folder. What is damaged is a failed job that says why; nothing is raised for it."""
    return [job for folder in _folders(root) if (job := _read(folder)) is not None]


def _folders(root: Path) -> Iterator[Path]:
    """Folders below `root` with a config.yaml, or the error of a job that came to none; hidden ones and a job's own are passed over."""
    for here, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if Path(here) != root and not {CONFIG, "error.txt"}.isdisjoint(files):
            folders.clear()
            yield Path(here)


def _read(folder: Path) -> Job | None:
    """The job in `folder`, None where its config.yaml is some other program's."""
    try:
        given = _configuration(folder)
        if "config" not in given and not any((folder / name).exists() for name in MADE_BY_A_JOB):
            return None
        if not isinstance(given.get("config"), dict):
            raise ValueError("it holds no configuration")
        config = flat(given["config"]) if given["config"] else {}
        choices = {str(key): str(value) for key, value in dict(given.get("choices") or {}).items()}
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        return Job(folder, {}, {}, None, _told(folder) or f"config.yaml is damaged: {_one_line(error)}")
    summary, why = _summary(folder)
    told = _told(folder)
    if told is not None and not _tells_of(summary, told):
        summary, why = None, told
    return Job(folder, config, choices, summary, why)


def _configuration(folder: Path) -> dict:
    """config.yaml, no configuration beside the error of a job that did not come to write it."""
    path = folder / CONFIG
    if not path.exists():
        return {"config": {}}
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError("it holds no configuration")
    return found


def _summary(folder: Path) -> tuple[dict | None, str | None]:
    """(summary, None), or (None, why there is none)."""
    try:
        found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        SUMMARY.validate_python(found, strict=True)
    except FileNotFoundError:
        return None, "no summary.json: stopped early, or still running"
    except ValidationError as error:
        first = error.errors()[0]
        return None, f"summary.json is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (OSError, ValueError) as error:
        return None, f"summary.json is damaged: {_one_line(error)}"
    return (found, None) if found["complete"] else (None, f"incomplete: stopped after {found['images']} images")


def _tells_of(summary: dict | None, error: str) -> bool:
    """Whether `error` is the end of the run that `summary` is of, in which some restorations failed and others did not."""
    return summary is not None and 0 < summary["failed"] < summary["records"] and (summary.get("first_failure") or "\n") in error


def _told(folder: Path) -> str | None:
    """The last line of error.txt, None where there is no such file. It makes an older summary void."""
    try:
        lines = (folder / "error.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"error.txt cannot be read: {_one_line(error)}"
    return next((line.strip() for line in reversed(lines) if line.strip()), "failed without a message")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
