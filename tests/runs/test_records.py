"""records.jsonl: complete lines only, and each item once, even if several processes wrote it and were killed."""

from __future__ import annotations

import json
import math
import random

import pytest

from diffusion_priors.runs.files import append_line
from diffusion_priors.runs.layout import RunLayout
from diffusion_priors.runs.records import Record, drop_partial_line, read_lines, read_records


def record(name: str, sample: int = 0, psnr: float = 20.0) -> dict:
    return {"id": name, "sample": sample, "psnr": psnr}


def write(path, *records: dict, tail: str = "") -> None:
    path.write_text("".join(json.dumps(one) + "\n" for one in records) + tail)


def test_an_incomplete_line_is_ignored_and_the_next_one_starts_on_its_own(tmp_path):
    """Cut at every byte: the complete lines before it are read, and the next record goes to its own line."""
    path = RunLayout(tmp_path).records_of(0)
    kept, lost = [record("ä"), record("b")], json.dumps(record("é", 3), ensure_ascii=False).encode() + b"\n"
    write(path, *kept)
    whole = path.read_bytes()
    for cut in range(len(lost)):
        path.write_bytes(whole + lost[:cut])
        assert list(read_lines(path)) == kept
        drop_partial_line(path)
        assert path.read_bytes() == whole
        append_line(path, lost.decode().strip())
        assert [one["id"] for one in read_lines(path)] == ["ä", "b", "é"]


def test_complete_empty_and_absent_files_are_not_changed(tmp_path):
    path = RunLayout(tmp_path).records_of(0)
    drop_partial_line(path)
    assert not path.exists()
    for content in (b"", b'{"id": "a"}\n'):
        path.write_bytes(content)
        drop_partial_line(path)
        assert path.read_bytes() == content


@pytest.mark.parametrize("line", ["{", "[1]", "3", "", '{"id": "a"} {"id": "b"}'])
def test_a_damaged_line_in_the_middle_is_reported_with_its_number(tmp_path, line):
    path = RunLayout(tmp_path).records_of(0)
    write(path, record("a"), tail=f"{line}\n" + json.dumps(record("c")) + "\n")
    with pytest.raises(ValueError, match=r"line 2 of .*records\.jsonl is damaged; delete that line, and its restoration is computed again"):
        read_records(tmp_path)


def test_the_files_of_all_processes_are_merged_and_sorted_by_image_and_sample(tmp_path):
    """More than ten processes, and lines in any order."""
    every = [record(name, sample) for name in ("a", "a-1", "b", "ä") for sample in range(12)]
    mixed = random.Random(0).sample(every, len(every))
    for rank in range(12):
        write(RunLayout(tmp_path).records_of(rank), *mixed[rank::12])
    assert len(RunLayout(tmp_path).all_records()) == 12 and RunLayout(tmp_path).all_records()[0] == RunLayout(tmp_path).records_of(0)
    assert read_records(tmp_path) == every


def test_an_item_recorded_twice_counts_once_and_the_merged_file_is_right(tmp_path):
    """A process may be killed between merging the files and removing one of them."""
    write(RunLayout(tmp_path).records_of(0), record("a", psnr=1.0), record("b", psnr=2.0), record("a", psnr=9.0))
    write(RunLayout(tmp_path).records_of(1), record("b", psnr=9.0), record("c", psnr=3.0), tail='{"id": "d"')
    assert read_records(tmp_path) == [record("a", psnr=1.0), record("b", psnr=2.0), record("c", psnr=3.0)]


def test_a_folder_without_records_has_none(tmp_path):
    (tmp_path / "records.jsonl.bak").write_text("x\n")
    assert RunLayout(tmp_path).all_records() == [] and read_records(tmp_path) == []


def test_a_record_has_one_schema_and_null_for_what_json_does_not_have():
    """Infinite and undefined values, of scores, of the measurement and of what the solver reports."""
    shared = {"id": "a", "sample": 2, "seed": 0, "residual": math.nan, "sigma_y": math.inf, "info": {"ess": math.nan, "inner": 3.0}}
    found = Record(scores={"psnr": math.inf, "ssim": 0.5}, measurement_scores={"psnr": 20.0, "ssim": math.nan}, **shared).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert [*found] == [
        *("id", "sample", "seed", "psnr", "ssim", "residual", "nfe_forward", "nfe_vjp", "seconds", "sigma_y"),
        *("psnr_measurement", "ssim_measurement", "measurement_hash", "peak_memory_mib", "info", "error"),
    ]
    assert {key: value for key, value in found.items() if value is not None} == {
        "id": "a",
        "sample": 2,
        "seed": 0,
        "ssim": 0.5,
        "psnr_measurement": 20.0,
        "info": {"ess": None, "inner": 3.0},
    }
