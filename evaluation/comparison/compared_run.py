"""A finished run's output folder, read for a comparison."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

import yaml

from diffusion_priors.runs.records import read_lines, read_records

NO_SCORES = {"id", "info", "sample", "seed", "samples", "nfe_forward", "nfe_vjp", "sigma_y", "measurement_hash", "peak_memory_mib", "error"}
"""Keys of records.jsonl and posterior.jsonl that are not compared, as the scores of measurements are not."""


@dataclass(frozen=True)
class Run:
    """An output folder: the records of each image, the rows of posterior.jsonl, and what config.yaml and summary.json say.

    Images of which a sample failed are in `failed` and nowhere else. `summary` is None where there is none.
    """

    root: Path
    config: dict
    choices: dict
    summary: dict | None
    records: dict[str, list[dict]]
    posterior: dict[str, dict]
    failed: list[str]

    @property
    def title(self) -> str:
        return (self.summary or {}).get("title") or " · ".join(
            str(self.choices[key]) for key in ("solver", "operator") if key in self.choices
        )

    @cached_property
    def single(self) -> dict[str, dict[str, float | None]]:
        """Each image's scores, the mean over its samples that have a value; None where none has."""
        return {name: self._scores(records) for name, records in self.records.items()}

    @cached_property
    def posterior_mean(self) -> dict[str, dict[str, float | None]]:
        """The scores of each image's posterior mean."""
        return {name: self._scores([row]) for name, row in self.posterior.items()}

    def _scores(self, rows: list[dict]) -> dict[str, float | None]:
        means = {}
        for name in rows[0]:
            if name in NO_SCORES or name.endswith("_measurement"):
                continue
            values = [row[name] for row in rows if row.get(name) is not None]
            wrong = [value for value in values if not isinstance(value, (int, float))]
            if wrong:
                raise ValueError(f"{self.root} is damaged: {name} of the image {rows[0]['id']} is {wrong[0]!r:.40}; evaluate again")
            means[name] = fmean(values) if values else None
        return means


def read_run(root: Path) -> Run:
    """What `root` holds. Raises FileNotFoundError or ValueError where it is no run's output folder, or a damaged one."""
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}; compare= takes the output folders of two runs")
    records = _by_image(root)
    if not records:
        jobs = sorted(path.parent for path in root.glob("*/records.jsonl"))
        hint = f"it is a sweep's: name one of its jobs, as in {jobs[0]}" if jobs else "name the output folder of a run"
        raise FileNotFoundError(f"{root} holds no records; {hint}")
    failed = [name for name, own in records.items() if any(record.get("error") is not None for record in own)]
    posterior, summary = root / "posterior.jsonl", root / "summary.json"
    rows = {_image(row, root): row for row in read_lines(posterior)} if posterior.is_file() else {}
    config = _mapping(root / "config.yaml", yaml.safe_load)
    return Run(
        root=root,
        config=_part(config, "config", root),
        choices=_part(config, "choices", root),
        summary=_mapping(summary, json.loads) if summary.is_file() else None,
        records={name: own for name, own in records.items() if name not in failed},
        posterior={name: row for name, row in rows.items() if name not in failed},
        failed=failed,
    )


def _by_image(root: Path) -> dict[str, list[dict]]:
    try:
        records = read_records(root)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{root} is damaged: a record lacks its id or sample ({error}); evaluate again") from error
    found: dict[str, list[dict]] = {}
    for record in records:
        found.setdefault(_image(record, root), []).append(record)
    return found


def _image(row: dict, root: Path) -> str:
    if not isinstance(row.get("id"), str):
        raise ValueError(f"{root} is damaged: there is no image's id in {json.dumps(row):.60}; evaluate again")
    return row["id"]


def _mapping(path: Path, parse: Callable[[str], object]) -> dict:
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing, so {path.parent} is no whole run; evaluate again") from None
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is damaged: {str(error).splitlines()[0]}; evaluate again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds {content!r:.40}; evaluate again")
    return content


def _part(config: dict, name: str, root: Path) -> dict:
    part = config.get(name, {})
    if not isinstance(part, dict):
        raise ValueError(f"{root / 'config.yaml'} is damaged: {name} is {part!r:.40}; evaluate again")
    return part
