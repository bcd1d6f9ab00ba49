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
    """What was logged, one dictionary per call."""
    rows = (record.history.item for record in records(path) if record.WhichOneof("record_type") == "history")
    return [{item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in row} for row in rows]


def run(path: Path) -> wandb_internal_pb2.RunRecord:
    """The run's own record: id, project, group."""
    return next(record.run for record in records(path) if record.WhichOneof("record_type") == "run")


def config(path: Path) -> dict[str, object]:
    """The run's configuration, as plain values."""
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in run(path).config.update}


def summary(path: Path) -> dict[str, object]:
    """What the dashboard shows of the run as a whole: the last value of each key, nested keys flat."""
    found: dict[str, object] = {}
    for record in records(path):
        if record.WhichOneof("record_type") == "summary":
            found |= {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.summary.update}
    return found


def exit_code(path: Path) -> int | None:
    """The exit code of the run; None where it was not closed."""
    return next((record.exit.exit_code for record in records(path) if record.WhichOneof("record_type") == "exit"), None)


def finished(path: Path, seconds: float = 30.0) -> Path:
    """The file, once it holds the end of the run: wandb.finish returns a little earlier."""
    until = monotonic() + seconds
    while exit_code(path) is None:
        assert monotonic() < until, f"{path} has no end"
        sleep(0.05)
    return path


def artifacts(path: Path) -> dict[str, dict[str, Path]]:
    """Artifact type → {name in the artifact: the local file}, of those that were logged."""
    logged = (record.artifact for record in records(path) if record.WhichOneof("record_type") == "artifact")
    return {one.type: {entry.path: Path(entry.local_path) for entry in one.manifest.contents} for one in logged}
