"""records.jsonl: one line per image and sample, appended at once by one writer per process, merged on read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

RECORDS = "records.jsonl"


def part(root: Path, rank: int) -> Path:
    """The file that process `rank` appends to; that of the first process is what all are merged into."""
    return root / (RECORDS if rank == 0 else f"records.{rank}.jsonl")


def parts(root: Path) -> list[Path]:
    """Every part there is."""
    return [path for path in [root / RECORDS, *sorted(root.glob("records.*.jsonl"))] if path.is_file()]


def read_lines(path: Path) -> Iterator[dict]:
    """The JSON objects of a file, one a line. A last line that a killed process left half written is no line.

    Raises ValueError for any other line that is no JSON object.
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
                raise ValueError(f"line {number} of {path} is damaged; delete that line, and what it recorded is done again")
            yield value


def read_records(root: Path) -> list[dict]:
    """All records under `root`, sorted by image and sample, each once. Raises ValueError for a damaged line."""
    found: dict[tuple[str, int], dict] = {}
    for path in parts(root):
        for record in read_lines(path):
            found.setdefault((record["id"], record["sample"]), record)
    return [found[key] for key in sorted(found)]


def mend(path: Path) -> None:
    """Cut off a last line that is not whole, so that the next one begins on its own."""
    if not path.is_file():
        return
    with path.open("rb+") as stream:
        content = stream.read()
        stream.truncate(content.rfind(b"\n") + 1)
