"""What a sweep varied, in few words: the configuration's keys that differ between its jobs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from diffusion_priors.evaluation.reporting.finished_run import Job

BESIDE_THE_POINT = (
    *("output_dir", "overwrite", "logger", "logger.*", "callbacks", "callbacks.*", "table", "table.*"),
    *(f"trainer.{key}" for key in ("accelerator", "devices", "num_nodes", "strategy", "threads")),
)
"""Keys that say where a job ran and how it is reported, not what it computed."""

SIGMAS = ("noise_model.sigma",)
"""Keys that are standard deviations in the [-1, 1] units of the images."""


class Absent:
    """The value of a key that a job does not have."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = Absent()


@dataclass(frozen=True)
class Parameter:
    """A column: `key` is a key of the configuration, or a group told by its option if `is_choice`; `values` by folder."""

    key: str
    name: str
    is_choice: bool
    values: dict[Path, Any]

    def of(self, job: Job) -> Any:
        return self.values.get(job.folder, ABSENT)

    def text(self, job: Job) -> str:
        """The value as a cell under `heading`; empty where the job has none."""
        return plain(self.of(job))

    @property
    def heading(self) -> str:
        return self.name

    @property
    def axis(self) -> str:
        return self.name

    def words(self, job: Job) -> str:
        """The value where no heading stands over it: "dps", "zeta 0.3"; empty where the job has none."""
        return self.text(job) if self.is_choice or self.of(job) is ABSENT else f"{self.name} {self.text(job)}"

    def order(self, job: Job) -> tuple[bool, float, str]:
        """What jobs are sorted by: numbers by size, before texts."""
        value = self.of(job)
        return (False, value, "") if is_number(value) else (True, 0.0, self.text(job))

    def numbers(self, jobs: Iterable[Job]) -> list[float]:
        """The distinct values in order where all that `jobs` have are numbers, else none."""
        values = [self.of(job) for job in jobs if self.of(job) is not ABSENT]
        return sorted(set(values)) if all(map(is_number, values)) else []


class Sigma(Parameter):
    """A standard deviation in the [-1, 1] units of the images, written in both."""

    def text(self, job: Job) -> str:
        value = self.of(job)
        return f"{plain(value)} = {plain(value / 2)} in [0, 1]" if is_number(value) else plain(value)

    @property
    def heading(self) -> str:
        return f"{self.name} in [-1, 1]"

    @property
    def axis(self) -> str:
        return f"{self.name} in [-1, 1] (half of it in [0, 1])"


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def plain(value: Any) -> str:
    """A value of the configuration as one would type it."""
    if value is ABSENT:
        return ""
    if isinstance(value, str):
        return value
    return format(value, ".10g") if isinstance(value, float) else json.dumps(value, ensure_ascii=False, default=str)


def words(parameters: Iterable[Parameter], job: Job) -> str:
    """Some of a job's parameters on one line: "dps, zeta 0.3"."""
    return ", ".join(text for parameter in parameters if (text := parameter.words(job)))


def swept_parameters(jobs: Sequence[Job]) -> list[Parameter]:
    """The columns that tell the jobs apart, in the configuration's order.

    A group whose class or option differs is one column, its option. A key inside it is a column only if it varies
    while the options of the groups around it stay. Jobs without a configuration count for nothing.
    """
    jobs = [job for job in jobs if job.config]
    keys = list(dict.fromkeys(key for job in jobs for key in job.config))
    nodes = list(dict.fromkeys(key.partition(".")[0] for key in keys))
    keys.sort(key=lambda key: nodes.index(key.partition(".")[0]))
    differing = [key for key in keys if _counts(key) and _differs(jobs, key)]
    groups = _groups(jobs, differing)
    columns = dict.fromkeys(column for key in differing for column in (*_around(key, groups), _column(key)))
    values = {key: groups[key] if key in groups else _values(jobs, key) for key in columns}
    kept = [key for key in columns if _varies_within(jobs, values[key], [groups[group] for group in _around(key, groups)])]
    return [(Sigma if key in SIGMAS else Parameter)(key, _short(key, kept), key in groups, values[key]) for key in kept]


def _counts(key: str) -> bool:
    return not any(fnmatchcase(key, pattern) for pattern in BESIDE_THE_POINT)


def _values(jobs: Iterable[Job], key: str) -> dict[Path, Any]:
    return {job.folder: job.config.get(key, ABSENT) for job in jobs}


def _token(value: Any) -> str:
    """Equal for equal values: 1 and 1.0 are, 1 and true are not."""
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value, default=str, sort_keys=True)


def _differs(jobs: Iterable[Job], key: str) -> bool:
    return len({_token(value) for value in _values(jobs, key).values()}) > 1


def _column(key: str) -> str:
    return key.removesuffix("._target_")


def _around(key: str, groups: Iterable[str]) -> list[str]:
    """The groups that hold `key`, outermost first."""
    return sorted(group for group in groups if key.startswith(f"{group}."))


def _groups(jobs: Sequence[Job], differing: Sequence[str]) -> dict[str, dict[Path, Any]]:
    """Group → option by folder, for the groups whose class differs, or whose option does and something in them."""
    named = {group for job in jobs for group in _options(job)}
    chosen = [
        group
        for group in named
        if len({_options(job).get(group) for job in jobs}) > 1 and any(key.startswith(f"{group}.") for key in differing)
    ]
    groups = {_column(key) for key in differing if key.endswith("._target_")} | set(chosen)
    return {group: _labels(jobs, group) for group in groups}


def _options(job: Job) -> dict[str, str]:
    """Group → option, by the group's place in the configuration: annealing@solver.annealing is solver.annealing."""
    return {key.rpartition("@")[2].replace("/", "."): option for key, option in job.choices.items()}


def _labels(jobs: Sequence[Job], group: str) -> dict[Path, Any]:
    """Each job's option of `group`; the classes' names where options do not tell the classes apart."""
    targets = {job.folder: job.config.get(f"{group}._target_", job.config.get(group, ABSENT)) for job in jobs}
    options = {job.folder: _options(job).get(group) for job in jobs if targets[job.folder] is not ABSENT}
    pairs = {(option, _token(targets[folder])) for folder, option in options.items()}
    if None not in options.values() and len(pairs) == len(set(options.values())):
        return {job.folder: options.get(job.folder, ABSENT) for job in jobs}
    return {folder: target.rpartition(".")[2] if isinstance(target, str) else target for folder, target in targets.items()}


def _varies_within(jobs: Iterable[Job], values: dict[Path, Any], around: Sequence[dict[Path, Any]]) -> bool:
    """Whether `values` differ among jobs that agree in all of `around`."""
    seen: dict[tuple, set] = {}
    for job in jobs:
        seen.setdefault(tuple(_token(labels[job.folder]) for labels in around), set()).add(_token(values[job.folder]))
    return any(len(tokens) > 1 for tokens in seen.values())


def _short(key: str, keys: Iterable[str]) -> str:
    """The last part of `key`, or all of it where another of `keys` ends alike."""
    last = key.rpartition(".")[2]
    return key if sum(other.rpartition(".")[2] == last for other in keys) > 1 else last
