"""records.jsonl: one line per image and sample, appended at once by one writer per process, merged on read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from diffusion_priors.runs.layout import RunLayout


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
