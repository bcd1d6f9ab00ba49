"""records.jsonl: complete lines only, and each item once, even if several processes wrote it and were killed."""

from __future__ import annotations

import json
import math
import os
import random

import pytest

from diffusion_priors.runs.files import append_line
from diffusion_priors.runs.layout import RunLayout
from diffusion_priors.runs.reading.records import Record, drop_partial_line, read_lines, read_records

UNKNOWN = {"seed": 0} | dict.fromkeys(
    ("residual", "nfe_forward", "nfe_vjp", "seconds", "sigma_y", "measurement_hash", "peak_memory_mib", "error")
)


def record(name: str, sample: int = 0, psnr: float | None = 20.0) -> dict:
    return {"id": name, "sample": sample, "psnr": psnr} | UNKNOWN


def write(path, *records: dict, tail: str = "") -> None:
    path.write_text("".join(json.dumps(one) + "\n" for one in records) + tail)


def test_records_share_the_texts_of_their_keys(tmp_path):
    write(RunLayout(tmp_path).records, *(record(str(number)) for number in range(3)))
    assert len({id(key) for one in read_records(tmp_path) for key in one}) == len(record("a"))


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
    with pytest.raises(ValueError, match=r"line 2 of .*records\.jsonl is damaged \(.*\); .* repair=true computes this restoration again"):
        read_records(tmp_path)


def without(key: str) -> dict:
    return {name: value for name, value in record("a").items() if name != key}


DAMAGED = {
    **{f"no {key}": (without(key), f"it lacks the key {key}") for key in ("id", "sample", *UNKNOWN)},
    "an id that is a number": (record("a") | {"id": 3}, "of the type int"),
    "an id that leaves the folder": (record("../../x"), "separator"),
    "an absolute id": (record("/etc"), "separator"),
    "an id that is the folder above": (record(".."), "names no folder"),
    "an empty id": (record(""), "names no folder"),
    "an id that clears the terminal": (record("\x1b[2J"), "control character"),
    "a sample that is a text": (record("a") | {"sample": "0"}, 'sample="0": input should be a valid integer'),
    "a negative sample": (record("a", -1), "sample=-1: input should be greater than or equal to 0"),
    "a sample that is true": (record("a") | {"sample": True}, "sample=true: input should be a valid integer"),
    "a sample of 401 digits": (record("a", 10**400), "sample=1000000.*: input should be less than"),
    "a score that is a text": (record("a") | {"psnr": "high"}, 'psnr="high": input should be a valid number'),
    "a score that is true": (record("a") | {"psnr": True}, "psnr=true: input should be a valid number"),
    "a score of 401 digits": (record("a", psnr=10**400), "psnr=1000000.*: input should be a valid number"),
    "a score that overflows when it is squared": (record("a", psnr=1e308), "psnr=1e\\+308: should lie between -1e\\+100 and 1e\\+100"),
    "a score that is a list": (record("a") | {"psnr": [20.0]}, "psnr=.*: input should be a valid number"),
    "a measured score that is a text": (record("a") | {"psnr_measurement": ""}, 'psnr_measurement="": input should be a valid number'),
    "seconds that are a text": (record("a") | {"seconds": "1"}, 'seconds="1": input should be a valid number'),
    "info that is a list": (record("a") | {"info": [1]}, "info=.*: input should be a valid dictionary"),
    "info that holds a text": (record("a") | {"info": {"ess": "1"}}, 'info.ess="1": input should be a valid number'),
    "an error that is a number": (record("a") | {"error": 3}, "error=3: input should be a valid string"),
    "a hash that is none": (record("a") | {"hashes": {"restoration": "../x"}}, "hashes.restoration=.*: string should match"),
    "a hash of something else": (record("a") | {"hashes": {"x": "00"}}, "hashes.x.*: input should be 'truth' or 'restoration'"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_record_that_lacks_something_or_holds_another_type_is_damaged(tmp_path, case):
    value, says = DAMAGED[case]
    write(RunLayout(tmp_path).records, value)
    with pytest.raises(ValueError, match=rf"line 1 of .*records\.jsonl is damaged \(.*{says}.*\)") as refused:
        read_records(tmp_path)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 600


@pytest.mark.parametrize("line", ['"psnr": NaN', '"psnr": Infinity', '"psnr": 1e400', f'"psnr": {"[" * 10**5}', f'"psnr": {"9" * 5000}'])
def test_a_line_that_is_not_json_or_not_finite_is_damaged(tmp_path, line):
    text = json.dumps(record("a")).replace('"psnr": 20.0', line)
    RunLayout(tmp_path).records.write_text(f"{text}\n")
    with pytest.raises(ValueError, match=r"line 1 of .*records\.jsonl is damaged \(.*\)"):
        read_records(tmp_path)


def test_records_that_are_no_regular_file_are_refused_and_nobody_waits_for_them(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    for make in (os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path), lambda path: os.symlink(tmp_path / "elsewhere", path)):
        path = RunLayout(tmp_path).records
        make(path)
        with pytest.raises(ValueError, match=r"records\.jsonl cannot be read: it is no regular file"):
            read_records(tmp_path)
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


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
