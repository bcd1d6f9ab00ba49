"""What a run has on record of each image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from diffusion_priors.runs.layout import RunLayout
from diffusion_priors.runs.reading.record_line import PosteriorLine
from diffusion_priors.runs.reading.records import read_lines, read_records, records_by_image

NOT_SCORES = frozenset(
    {
        "id",
        "sample",
        "seed",
        "samples",
        "nfe_forward",
        "nfe_vjp",
        "sigma_y",
        "measurement_hash",
        "peak_memory_mib",
        "info",
        "error",
        "hashes",
    }
)
"""The keys of records.jsonl and posterior.jsonl that say nothing about the quality of a restoration."""


@dataclass(frozen=True)
class ImageRecords:
    """One image: a record per sample, and its row of posterior.jsonl, {} if there is none."""

    id: str
    records: list[dict]
    posterior: dict

    def mean(self, key: str) -> float | None:
        """The mean over the samples that have a value."""
        values = [record[key] for record in self.records if record.get(key) is not None]
        return fmean(values) if values else None

    def mean_info(self, key: str) -> float | None:
        """The mean of a value that the solver reported of itself."""
        values = [value for record in self.records if (value := (record.get("info") or {}).get(key)) is not None]
        return fmean(values) if values else None

    @property
    def restored(self) -> list[dict]:
        """The records of the samples that succeeded."""
        return [record for record in self.records if record.get("error") is None]

    @property
    def failed(self) -> list[dict]:
        """The records of the samples that failed."""
        return [record for record in self.records if record.get("error") is not None]

    @property
    def measurement_hashes(self) -> set[str | None]:
        return {record.get("measurement_hash") for record in self.records}

    @property
    def scores(self) -> dict[str, float | None]:
        """Metric → mean over the samples; the scores of the measurement are not included."""
        return {key: self.mean(key) for key in self.records[0] if _is_score(key)}

    @property
    def posterior_scores(self) -> dict[str, float | None]:
        """Metric → value of the posterior mean."""
        return {key: value for key, value in self.posterior.items() if _is_score(key)}


def read_images(folder: Path, records: Sequence[dict] | None = None) -> dict[str, ImageRecords]:
    """Image id → its records and its row of posterior.jsonl, for the run in `folder`.

    `records` are used instead of those in the folder. Raises OSError or ValueError, in one line, for damaged files.
    """
    path = RunLayout(folder).posterior
    rows = list(read_lines(path, PosteriorLine)) if os.path.lexists(path) else []
    records = read_records(folder) if records is None else records
    posterior = {row["id"]: row for row in rows}
    return {name: ImageRecords(name, own, posterior.get(name, {})) for name, own in records_by_image(records).items()}


def _is_score(key: str) -> bool:
    return key not in NOT_SCORES and not key.endswith("_measurement")
