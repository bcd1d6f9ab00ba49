"""Reads an offline run's .wandb file: wandb's own protobuf records in LevelDB's log format (leveldb, doc/log_format.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

from wandb.proto import wandb_internal_pb2

BLOCK, FILE_HEADER, HEADER = 32768, 7, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[wandb_internal_pb2.Record]:
    """Every record of the file: chunks of at most a block, each headed by a CRC (4 bytes), a length (2) and a kind (1)."""
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    at, parts = FILE_HEADER, []
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:  # the rest of a block, too short for a header
            at += BLOCK - at % BLOCK
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        assert kind in (FULL, FIRST, MIDDLE, LAST)
        if at + HEADER + length > len(data):  # still being written
            return
        parts.append(data[at + HEADER : at + HEADER + length])
        at += HEADER + length
        if kind in (FULL, LAST):
            yield wandb_internal_pb2.Record.FromString(b"".join(parts))
            parts = []


def history(path: Path) -> list[dict[str, object]]:
    """What was logged, a dictionary a call."""
    rows = (record.history.item for record in records(path) if record.WhichOneof("record_type") == "history")
    return [{item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in row} for row in rows]


def run(path: Path) -> wandb_internal_pb2.RunRecord:
    """The run's own record: id, project, group."""
    return next(record.run for record in records(path) if record.WhichOneof("record_type") == "run")


def config(path: Path) -> dict[str, object]:
    """The run's configuration, as plain values."""
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in run(path).config.update}


def summary(path: Path) -> dict[str, object]:
    """What the dashboard shows of the run as a whole: of each figure the last one given, of nested ones all parts."""
    found: dict[str, object] = {}
    for record in records(path):
        if record.WhichOneof("record_type") == "summary":
            found |= {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.summary.update}
    return found


def exit_code(path: Path) -> int | None:
    """As the run was finished with; None where it was not."""
    return next((record.exit.exit_code for record in records(path) if record.WhichOneof("record_type") == "exit"), None)


def finished(path: Path, seconds: float = 30.0) -> Path:
    """The file, once the run's end is in it: wandb.finish comes back a little before."""
    until = monotonic() + seconds
    while exit_code(path) is None:
        assert monotonic() < until, f"{path} has no end"
        sleep(0.05)
    return path


def artifacts(path: Path) -> dict[str, dict[str, Path]]:
    """The type of each artifact that was logged, and its files, by their names in it, where they wait to be sent."""
    logged = (record.artifact for record in records(path) if record.WhichOneof("record_type") == "artifact")
    return {one.type: {entry.path: Path(entry.local_path) for entry in one.manifest.contents} for one in logged}
