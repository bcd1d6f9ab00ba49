"""Files are written as a whole or not at all."""

from __future__ import annotations

import os

import pytest

from diffusion_priors.runs.files import append_line, write_whole


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / "deep" / "file"
    write_whole(path, lambda f: f.write(b"old"))

    def fails(stream):
        stream.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, fails)
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]


def test_a_line_that_cannot_be_written_as_a_whole_is_removed_again(tmp_path, monkeypatch):
    path = tmp_path / "records.jsonl"
    append_line(path, "first")
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
    with pytest.raises(OSError, match="only 3 of 7 bytes"):
        append_line(path, "second")
    monkeypatch.undo()
    append_line(path, "third")
    assert path.read_text() == "first\nthird\n"
