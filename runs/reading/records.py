"""records.jsonl: one line per image and sample, appended at once by one writer per process, merged on reading."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from json import JSONDecodeError
from math import isfinite
from pathlib import Path
from sys import intern

from pydantic import BaseModel

from diffusion_priors.runs.layout import RunLayout
from diffusion_priors.runs.reading.foreign import parse_json
from diffusion_priors.runs.reading.plain import open_regular
from diffusion_priors.runs.reading.record_line import RecordLine, check_line

ADVICE = "the command of the run with repair=true computes this restoration again"


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


@dataclass(frozen=True)
class Line:
    """Line `number` of the file `path`: its `value`, and what is wrong with it where it is damaged."""

    path: Path
    number: int
    value: dict
    fault: str | None = None

    def __str__(self) -> str:
        return f"line {self.number} of {self.path} is damaged ({self.fault})"


def scan_lines(path: Path, kind: type[BaseModel], scores: Sequence[str] = ()) -> Iterator[Line]:
    """The lines of a file, each compared with `kind`. An incomplete last line, left by a killed process, is ignored.

    Raises OSError or ValueError, in one line, where the file cannot be read.
    """
    try:
        stream = open_regular(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{path} cannot be read: {reason}; delete it, or choose another folder") from error
    with stream:
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                return
            value: dict = {}
            try:
                value = parse_json(line)
                check_line(value, kind, scores)
            except ValueError as error:
                yield Line(path, number, value if isinstance(value, dict) else {}, _reason(error))
            else:
                yield Line(path, number, value)


def _reason(error: ValueError) -> str:
    return "it is not JSON" if isinstance(error, JSONDecodeError) else " ".join(str(error).split())


def read_lines(path: Path, kind: type[BaseModel] = RecordLine) -> Iterator[dict]:
    """The JSON objects of a file, one per line. Raises ValueError for a damaged line; `scan_lines` says what that is.

    All share the texts of their keys, which are half of the memory that a record takes.
    """
    for line in scan_lines(path, kind):
        if line.fault is not None:
            raise ValueError(f"{line}; {ADVICE}")
        yield {intern(key): value for key, value in line.value.items()}


def read_records(root: Path) -> list[dict]:
    """All records under `root`, sorted by image and sample, each once. Raises ValueError for a damaged line."""
    return once(record for path in RunLayout(root).all_records() for record in read_lines(path))


def once(records: Iterable[dict]) -> list[dict]:
    """The records sorted by image and sample; of those of one item, the first."""
    found: dict[tuple[str, int], dict] = {}
    for record in records:
        found.setdefault(key_of(record), record)
    return [found[key] for key in sorted(found)]


def key_of(record: dict) -> tuple[str, int]:
    """The item that a record is of: (image id, sample)."""
    return record["id"], record["sample"]


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
