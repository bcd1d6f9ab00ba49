"""records.jsonl: one line per image and sample, appended at once by one writer per process, merged on reading."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

from diffusion_priors.runs.layout import RunLayout


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of one restoration. A value that is unknown or not finite is null in the file.

    `scores` and `measurement_scores` are by metric: {"psnr": 26.1, …}; in the file they are the keys psnr and
    psnr_measurement. `residual` is the root mean square of y − A x̂0, in the units of y like `sigma_y`. `nfe_forward`
    and `nfe_vjp` count network evaluations. `info` holds what the solver reports of itself. `error` says why there is
    no restoration.
    """

    id: str
    sample: int
    seed: int | None
    scores: dict[str, float | None]
    measurement_scores: dict[str, float | None]
    residual: float | None = None
    nfe_forward: int | None = None
    nfe_vjp: int | None = None
    seconds: float | None = None
    sigma_y: float | None = None
    measurement_hash: str | None = None
    peak_memory_mib: float | None = None
    info: dict[str, float | None] = field(default_factory=dict)
    error: str | None = None

    def to_dict(self) -> dict:
        """The object that a line of records.jsonl holds."""
        return {
            "id": self.id,
            "sample": self.sample,
            "seed": self.seed,
            **{name: finite(value) for name, value in self.scores.items()},
            "residual": finite(self.residual),
            "nfe_forward": self.nfe_forward,
            "nfe_vjp": self.nfe_vjp,
            "seconds": self.seconds,
            "sigma_y": finite(self.sigma_y),
            **{f"{name}_measurement": finite(value) for name, value in self.measurement_scores.items()},
            "measurement_hash": self.measurement_hash,
            "peak_memory_mib": self.peak_memory_mib,
            "info": {name: finite(value) for name, value in self.info.items()},
            "error": self.error,
        }


def finite(value: float | None) -> float | None:
    """JSON has neither infinity nor NaN: null stands for them."""
    return value if value is not None and isfinite(value) else None


def read_lines(path: Path) -> Iterator[dict]:
    """The JSON objects of a file, one per line. An incomplete last line, left by a killed process, is ignored.

    Raises ValueError for any other line that is not a JSON object.
    """
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                return
            try:
                value = json.loads(line)
            except ValueError:
                value = None
            if not isinstance(value, dict):
                raise ValueError(f"line {number} of {path} is damaged; delete that line, and its restoration is computed again")
            yield value


def read_records(root: Path) -> list[dict]:
    """All records under `root`, sorted by image and sample, each once. Raises ValueError for a damaged line."""
    found: dict[tuple[str, int], dict] = {}
    for path in RunLayout(root).all_records():
        for record in read_lines(path):
            found.setdefault((record["id"], record["sample"]), record)
    return [found[key] for key in sorted(found)]


def drop_partial_line(path: Path) -> None:
    """Remove a last line that is not complete, so that the next record starts on its own line."""
    if not path.is_file():
        return
    with path.open("rb+") as stream:
        content = stream.read()
        stream.truncate(content.rfind(b"\n") + 1)


def records_by_image(records: Iterable[dict]) -> dict[str, list[dict]]:
    """Image id → its records, in the order given."""
    images: dict[str, list[dict]] = {}
    for record in records:
        images.setdefault(record["id"], []).append(record)
    return images
