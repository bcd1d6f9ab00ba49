"""The parameters of a sweep: the configuration keys that differ between its jobs, under short names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from diffusion_priors.evaluation.reporting.finished_run import FinishedRun

NOT_A_PARAMETER = (
    *("output_dir", "overwrite", "repair", "logger", "logger.*", "callbacks", "callbacks.*", "table", "table.*"),
    *(f"trainer.{key}" for key in ("accelerator", "devices", "num_nodes", "strategy", "threads")),
)
"""Keys that say where a job ran and how it is reported. They do not change what it computes."""

SIGMAS = ("noise_model.sigma",)
"""Keys that are standard deviations on the [-1, 1] scale of the images."""


class NotSet:
    """The value of a key that a job does not have. None is a value that a key may have."""

    def __repr__(self) -> str:
        return "NOT_SET"


NOT_SET = NotSet()


@dataclass(frozen=True)
class Parameter:
    """A column: `key` is a key of the configuration or, if `is_choice`, a config group with its option as value; `values` by folder."""

    key: str
    name: str
    is_choice: bool
    values: dict[Path, Any]

    def of(self, job: FinishedRun) -> Any:
        return self.values.get(job.folder, NOT_SET)

    def text(self, job: FinishedRun) -> str:
        """The value as a cell under `heading`; empty if the job has none."""
        return plain(self.of(job))

    @property
    def heading(self) -> str:
        return self.name

    @property
    def axis(self) -> str:
        return self.name

    def words(self, job: FinishedRun) -> str:
        """The value without a heading: "dps", "zeta 0.3"; empty if the job has none."""
        return self.text(job) if self.is_choice or self.of(job) is NOT_SET else f"{self.name} {self.text(job)}"

    def order(self, job: FinishedRun) -> tuple[bool, float, str]:
        """The key to sort jobs by: numbers by size, then texts."""
        value = self.of(job)
        return (False, value, "") if is_number(value) else (True, 0.0, self.text(job))

    def numbers(self, jobs: Iterable[FinishedRun]) -> list[float]:
        """The distinct values of `jobs` in order; [] if one of them is not a number."""
        values = [self.of(job) for job in jobs if self.of(job) is not NOT_SET]
        return sorted(set(values)) if all(map(is_number, values)) else []


class Sigma(Parameter):
    """A standard deviation on the [-1, 1] scale of the images; it is printed on both scales."""

    def text(self, job: FinishedRun) -> str:
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
    """A value of the configuration as a user types it."""
    if value is NOT_SET:
        return ""
    if isinstance(value, str):
        return value
    return format(value, ".10g") if isinstance(value, float) else json.dumps(value, ensure_ascii=False, default=str)


def words(parameters: Iterable[Parameter], job: FinishedRun) -> str:
    """The parameters of a job in one line: "dps, zeta 0.3"."""
    return ", ".join(text for parameter in parameters if (text := parameter.words(job)))


def swept_parameters(jobs: Sequence[FinishedRun]) -> list[Parameter]:
    """The columns that distinguish the jobs, in the order of the configuration.

    A config group whose class or option differs is one column with the option. A key inside a group is a column only
    if it varies between jobs with equal options of all groups around it. Jobs without a configuration are ignored.
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
    return not any(fnmatchcase(key, pattern) for pattern in NOT_A_PARAMETER)


def _values(jobs: Iterable[FinishedRun], key: str) -> dict[Path, Any]:
    return {job.folder: job.config.get(key, NOT_SET) for job in jobs}


def _token(value: Any) -> str:
    """A text that is equal for equal values: for 1 and 1.0, but not for 1 and true."""
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value, default=str, sort_keys=True)


def _differs(jobs: Iterable[FinishedRun], key: str) -> bool:
    return len({_token(value) for value in _values(jobs, key).values()}) > 1


def _column(key: str) -> str:
    return key.removesuffix("._target_")


def _around(key: str, groups: Iterable[str]) -> list[str]:
    """The groups that hold `key`, outermost first."""
    return sorted(group for group in groups if key.startswith(f"{group}."))


def _groups(jobs: Sequence[FinishedRun], differing: Sequence[str]) -> dict[str, dict[Path, Any]]:
    """Group → option by folder, for the groups whose class differs, and those whose option and content differ."""
    named = {group for job in jobs for group in _options(job)}
    chosen = [
        group
        for group in named
        if len({_options(job).get(group) for job in jobs}) > 1 and any(key.startswith(f"{group}.") for key in differing)
    ]
    groups = {_column(key) for key in differing if key.endswith("._target_")} | set(chosen)
    return {group: _labels(jobs, group) for group in groups}


def _options(job: FinishedRun) -> dict[str, str]:
    """Group → option. A group is named by its place in the configuration: annealing@solver.annealing is solver.annealing."""
    return {key.rpartition("@")[2].replace("/", "."): option for key, option in job.choices.items()}


def _labels(jobs: Sequence[FinishedRun], group: str) -> dict[Path, Any]:
    """The option of `group` in each job; the names of the classes if one option stands for several classes."""
    targets = {job.folder: job.config.get(f"{group}._target_", job.config.get(group, NOT_SET)) for job in jobs}
    options = {job.folder: _options(job).get(group) for job in jobs if targets[job.folder] is not NOT_SET}
    pairs = {(option, _token(targets[folder])) for folder, option in options.items()}
    if None not in options.values() and len(pairs) == len(set(options.values())):
        return {job.folder: options.get(job.folder, NOT_SET) for job in jobs}
    return {folder: target.rpartition(".")[2] if isinstance(target, str) else target for folder, target in targets.items()}


def _varies_within(jobs: Iterable[FinishedRun], values: dict[Path, Any], around: Sequence[dict[Path, Any]]) -> bool:
    """Whether `values` differ among jobs that agree in all of `around`."""
    seen: dict[tuple, set] = {}
    for job in jobs:
        seen.setdefault(tuple(_token(labels[job.folder]) for labels in around), set()).add(_token(values[job.folder]))
    return any(len(tokens) > 1 for tokens in seen.values())


def _short(key: str, keys: Iterable[str]) -> str:
    """The last part of `key`, or all of it if another of `keys` has the same last part."""
    last = key.rpartition(".")[2]
    return key if sum(other.rpartition(".")[2] == last for other in keys) > 1 else last
