"""What an evaluation keeps: for whom, whether all of it is there, and what happens where it is not."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
from functools import partial
from pathlib import Path

import pytest
from forks import Run
from PIL import Image
from tiny_evaluation import TINY, assert_same, draw_images, evaluate, images, records, summary, the_line, undisturbed

pytestmark = pytest.mark.script

IMAGES, SAMPLES = 3, 2
LINE = ["data.root=images", f"num_samples={SAMPLES}", "batch_size=2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return undisturbed(tmp_path_factory.mktemp("whole"), IMAGES, *LINE)


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    """A folder of one's own with `images` and the finished `run`."""
    draw_images(tmp_path / "images", IMAGES)
    shutil.copytree(whole / "run", tmp_path / "run")
    return tmp_path


def repeat(folder: Path, *more: str, code: int = 0):
    return evaluate(folder, *LINE, "output_dir=run", *more, code=code)


def harmed(folder: Path, harm: str) -> str:
    """Do it to sample 1 of face-01, or to its record → what the command says."""
    image = folder / "run" / "images" / "face-01" / "restoration-1.png"
    lines = (folder / "run" / "records.jsonl").read_text().splitlines()
    if harm == "deleted":
        image.unlink()
        return "restoration-1.png of face-01 is missing"
    if harm == "truncated":
        image.write_bytes(image.read_bytes()[:200])
        return "restoration-1.png of face-01 is damaged"
    if harm == "altered":
        Image.new("RGB", (16, 16), "red").save(image)
        return "restoration-1.png of face-01 is not the image that was written"
    line = json.loads(lines[3])
    lines[3] = json.dumps(
        {key: value for key, value in line.items() if key != "psnr"} if harm == "no score" else line | {"psnr": float("nan")}
    )
    (folder / "run" / "records.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return r"line 4 of run/records\.jsonl is damaged \((it lacks the key psnr|NaN is not JSON)\)"


@pytest.mark.parametrize("also", ["alone", "report", "summary"])
@pytest.mark.parametrize("harm", ["deleted", "truncated", "altered", "no score", "not a number"])
def test_what_is_not_there_any_more_is_named_and_computed_again_on_request(whole, folder, harm, also):
    """Of a finished run, also where its page or its summary is missing; without repair=true nothing is changed."""
    says = harmed(folder, harm)
    if also != "alone":
        (folder / "run" / {"report": "report.html", "summary": "summary.json"}[also]).unlink()
    before = {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()}
    assert re.search(rf"{says}.*; add repair=true to compute this again, or overwrite=true", the_line(repeat(folder, code=2)))
    assert {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()} == before
    done = repeat(folder, "repair=true")
    assert f"{IMAGES * SAMPLES - 1} of {IMAGES * SAMPLES} restorations are on record; resuming" in done.stdout
    assert_same(folder / "run", whole / "run")
    assert "already evaluated" in repeat(folder).stdout


@pytest.mark.parametrize("content", ["{}", "[]", "3", "", '{"complete": true}', "[" * 10**5])
def test_a_damaged_summary_is_made_again_from_the_records(whole, folder, content):
    (folder / "run" / "summary.json").write_text(content)
    repeat(folder)
    assert_same(folder / "run", whole / "run")


def test_a_record_that_was_deleted_is_computed_again(whole, folder):
    path = folder / "run" / "records.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    assert f"{IMAGES * SAMPLES - 1} of {IMAGES * SAMPLES} restorations are on record" in repeat(folder).stdout
    assert_same(folder / "run", whole / "run")


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("records.jsonl", r"records were deleted during the run: .*; the same command computes them again"),
        (
            "images/face-00/restoration-0.png",
            r"images were changed during the run: restoration-0.png of face-00 is missing; add repair=true",
        ),
    ],
)
def test_what_is_deleted_while_the_run_works_is_noticed_at_its_end(whole, tmp_path, what, says):
    """There is no table over less, and nothing that says complete."""
    draw_images(tmp_path / "images", IMAGES)
    slow = ["+prior.network.rest=0.02", *LINE, "output_dir=run"]
    one = Run(tmp_path, *TINY, *slow)
    assert one.wait_until(lambda: (tmp_path / "run" / "records.jsonl").exists() and len(records(tmp_path / "run")) >= 2)
    (tmp_path / "run" / what).unlink()
    done = one.wait()
    assert done.returncode == 2 and re.search(says, the_line(done)) and "PSNR" not in done.stdout
    assert not (tmp_path / "run" / "summary.json").exists()
    evaluate(tmp_path, *slow, "repair=true")
    assert summary(tmp_path / "run")["complete"] and images(tmp_path / "run").keys() == images(whole / "run").keys()


def test_the_second_run_in_a_folder_is_told_who_has_it(tmp_path):
    draw_images(tmp_path / "images", IMAGES)
    slow = ["+prior.network.rest=1.0", *LINE, "output_dir=run"]
    one = Run(tmp_path, *TINY, *slow)
    assert one.wait_until((tmp_path / "run" / "config.yaml").exists)
    line = the_line(evaluate(tmp_path, *slow, code=2))
    assert f"run is in use by process {one.process.pid} on {os.uname().nodename} since" in line
    assert "in use by process" in the_line(evaluate(tmp_path, *slow, "overwrite=true", code=2))
    one.send(signal.SIGTERM)
    assert one.wait().returncode == 143 and not (tmp_path / "run" / ".run.lock").exists()


def test_a_run_that_is_killed_locks_nothing(tmp_path):
    """Neither do the processes that read images ahead for it."""
    draw_images(tmp_path / "images", IMAGES)
    slow = ["+prior.network.rest=0.1", "data.workers=1", *LINE, "output_dir=run"]
    one = Run(tmp_path, *TINY, *slow)
    assert one.wait_until((tmp_path / "run" / "records.jsonl").exists)
    os.kill(one.process.pid, signal.SIGKILL)
    one.process.join()
    assert (tmp_path / "run" / ".run.lock").exists()
    evaluate(tmp_path, *slow)
    assert not (tmp_path / "run" / ".run.lock").exists()


def test_files_have_the_permissions_of_the_umask(tmp_path):
    draw_images(tmp_path / "images", IMAGES)
    evaluate(tmp_path, *LINE, "logger=csv", "output_dir=run", before=partial(os.umask, 0o077))
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "run").rglob("*") if path.is_file()} == {0o600}
    evaluate(tmp_path, *LINE, "output_dir=group", before=partial(os.umask, 0o002))
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "group").rglob("*") if path.is_file()} == {0o664}


def test_what_is_kept_does_not_name_the_home(folder):
    """A run that an earlier version started, with its whole path, is resumed."""
    home = {"HOME": str(folder)}
    line = [f"data.root={folder}/images", *LINE[1:], f"output_dir={folder}/own"]
    evaluate(folder, *line, environment=home)
    for path in (folder / "own").rglob("*"):
        assert not path.is_file() or str(folder).encode() not in path.read_bytes(), path
    config = folder / "own" / "config.yaml"
    assert "root: ~/images" in config.read_text()
    config.write_text(config.read_text().replace("~/", f"{folder}/"))
    assert "already evaluated" in evaluate(folder, *line, environment=home).stdout


@pytest.mark.parametrize("logger", ["csv", "tensorboard"])
def test_a_finished_run_is_logged_from_what_is_on_record(folder, logger):
    """Once for each dashboard, and nothing is computed."""
    before = (folder / "run" / "records.jsonl").stat().st_mtime_ns
    assert "already evaluated, now logged: run" in repeat(folder, f"logger={logger}").stdout
    assert (folder / "run" / "records.jsonl").stat().st_mtime_ns == before
    kept = {path: path.stat().st_mtime_ns for path in (folder / "run" / logger).rglob("*") if path.is_file()}
    assert kept
    if logger == "csv":
        (path,) = kept
        assert f"{summary(folder / 'run')['statistics']['single']['psnr']['mean']}" in path.read_text()
    assert "already evaluated: run" in repeat(folder, f"logger={logger}").stdout
    assert "already evaluated: run" in repeat(folder).stdout
    assert {path: path.stat().st_mtime_ns for path in (folder / "run" / logger).rglob("*") if path.is_file()} == kept
