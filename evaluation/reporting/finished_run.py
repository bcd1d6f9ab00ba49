"""A finished run, read back from its folder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from diffusion_priors.evaluation.reporting.format import counted
from diffusion_priors.evaluation.reporting.image_records import ImageRecords, read_images
from diffusion_priors.evaluation.statistics import Estimate
from diffusion_priors.evaluation.summary import Summary
from diffusion_priors.runs.config import flat
from diffusion_priors.runs.layout import CONFIG, SUMMARY, RunLayout
from diffusion_priors.runs.reading.foreign import read_yaml
from diffusion_priors.runs.reading.plain import open_regular, read_json
from diffusion_priors.runs.reading.records import read_records

SUMMARY_SCHEMA = TypeAdapter(Summary)


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """What a run left in `folder`.

    `settings` is the content of config.yaml, {} without one. Exactly one of `summary`, `error` and `not_applicable` is
    not None. `error` says in one line why there is no complete summary; `not_applicable` says why the solver cannot be
    used for this operator, noise model or sampler. `damage` says which file cannot be read; it is part of the error.
    """

    folder: Path
    settings: dict[str, Any]
    summary: Summary | None
    error: str | None = None
    not_applicable: str | None = None
    damage: str | None = None

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration, flat: solver.zeta → 1.0."""
        nested = self.settings.get("config")
        return flat(nested) if isinstance(nested, dict) and nested else {}

    @cached_property
    def choices(self) -> dict[str, str]:
        """Config group → the option chosen."""
        chosen = self.settings.get("choices")
        return {str(group): str(option) for group, option in chosen.items()} if isinstance(chosen, dict) else {}

    @cached_property
    def images(self) -> dict[str, ImageRecords]:
        """Image id → what is on record of it, sorted. Raises ValueError, in one line, for damaged records."""
        return read_images(self.folder)

    @property
    def readable_images(self) -> dict[str, ImageRecords]:
        """`images`, or {} if the records are damaged."""
        try:
            return self.images
        except (OSError, ValueError):
            return {}

    @property
    def restored(self) -> dict[str, ImageRecords]:
        """The images of which every sample succeeded."""
        return {name: image for name, image in self.images.items() if not image.failed}

    @property
    def failed(self) -> list[str]:
        """The ids of the images of which a sample failed."""
        return [name for name, image in self.images.items() if image.failed]

    @property
    def title(self) -> str:
        if self.summary is not None:
            return self.summary["title"]
        return " · ".join(self.choices[group] for group in ("solver", "operator") if group in self.choices)

    @property
    def seconds(self) -> Estimate | None:
        """The time of a sample."""
        return self.summary and Estimate.from_dict(self.summary["cost"]["seconds"])

    @property
    def measurements(self) -> str | None:
        """A hash of the measurements: equal for runs that restored the same y."""
        return self.summary and self.summary["measurements"]

    def estimate(self, statistic: str, metric: str) -> Estimate | None:
        """A metric in one of STATISTICS, given by its key; None if it has no value."""
        return self.summary and Estimate.from_dict((self.summary["statistics"].get(statistic) or {}).get(metric))

    def cost(self, name: str) -> float | None:
        """nfe_forward, nfe_vjp, peak_memory_mib."""
        return self.summary and self.summary["cost"][name]


def read_run(folder: Path) -> FinishedRun:
    """Read the run in `folder`. Never raises: a file that is damaged or missing is the `error` of the run."""
    layout = RunLayout(folder)
    settings, damage = _settings(layout.config)
    error, reason = _last_line(layout.error, "failed without a message"), _last_line(layout.not_applicable, "without a reason")
    if damage is not None:
        return FinishedRun(folder, settings, None, error=error or damage, damage=damage)
    if error is None and reason is not None:
        return FinishedRun(folder, settings, None, not_applicable=reason)
    summary, problem, damage = _summary(layout)
    if error is not None and not _explains(summary, error):
        summary, problem = None, error
    return FinishedRun(folder, settings, summary, error=problem, damage=damage)


def read_summary(path: Path) -> Summary:
    """The content of a summary.json. Raises FileNotFoundError, or ValueError in one line if it does not fit the schema."""
    try:
        content = read_json(path)
        SUMMARY_SCHEMA.validate_python(content, strict=True)
    except FileNotFoundError:
        raise
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{SUMMARY} is damaged: {place + ': ' if place else ''}{first['msg']}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{SUMMARY} is damaged: {one_line(error)}") from error
    return content


def _settings(path: Path) -> tuple[dict, str | None]:
    """The content of config.yaml and what is wrong with it. A missing file is not damage: a job may fail before it writes one."""
    try:
        content = read_yaml(path)
    except FileNotFoundError:
        return {}, None
    except (OSError, ValueError) as error:
        return {}, f"{CONFIG} is damaged: {one_line(error)}"
    if not isinstance(content, dict):
        return {}, f"{CONFIG} is damaged: it holds no configuration"
    if not isinstance(content.get("config"), dict) or not isinstance(content.get("choices", {}), dict):
        return content, f"{CONFIG} is damaged: it holds no configuration"
    return content, None


def _summary(layout: RunLayout) -> tuple[Summary | None, str | None, str | None]:
    """(summary, error, damage): a summary that is complete, or why there is none."""
    try:
        summary = read_summary(layout.summary)
    except FileNotFoundError:
        return None, f"no {SUMMARY}: stopped early, or still running", None
    except ValueError as error:
        return None, str(error), str(error)
    if not summary["complete"]:
        return None, f"incomplete: stopped after {counted(summary['images'], 'image')}", None
    try:
        kept = len(read_records(layout.root))
    except (OSError, ValueError):  # whoever needs the records is told then
        return summary, None, None
    if kept != summary["records"]:
        return None, f"incomplete: {SUMMARY} counts {summary['records']} restorations, and {kept} are on record", None
    return summary, None, None


def _explains(summary: Summary | None, error: str) -> bool:
    """Whether `error` is how the run of `summary` ended: some restorations failed and the others did not."""
    return summary is not None and 0 < summary["failed"] < summary["records"] and (summary.get("first_failure") or "\n") in error


def _last_line(path: Path, empty: str) -> str | None:
    """The last line of error.txt or not_applicable.txt, `empty` if it has none; None without such a file.

    Such a file is newer than a summary in the same folder.
    """
    try:
        with open_regular(path) as stream:
            lines = stream.read().decode("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return f"{path.name} cannot be read: {one_line(error)}"
    return next((line.strip() for line in reversed(lines) if line.strip()), empty)


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
