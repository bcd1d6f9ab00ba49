"""The jobs of a sweep read back: finished, failed, damaged, not applicable."""

from __future__ import annotations

import json
from math import sqrt

import pytest
from sweep_folder import base_config, node, record, records_of, write_job
from swept_jobs import csv_rows, dps, ranked

from diffusion_priors.evaluation.sweeps.jobs import read_jobs
from diffusion_priors.evaluation.sweeps.leaderboard import csv_text, write_leaderboard
from diffusion_priors.evaluation.sweeps.parameters import swept_parameters


def test_jobs_are_found_in_nested_folders_but_not_in_hidden_or_foreign_ones(tmp_path):
    for name in ("b", "deep/er/a", ".hidden/c", "b/wandb/run-1/files"):
        write_job(tmp_path / name, records_of([20.0, 21.0]))
    write_job(tmp_path, records_of([20.0]))
    (tmp_path / "wandb/run/files").mkdir(parents=True)
    (tmp_path / "wandb/run/files/config.yaml").write_text("solver:\n  value: 1\n")
    assert [job.folder.relative_to(tmp_path).as_posix() for job in read_jobs(tmp_path)] == ["b", "deep/er/a"]


def test_a_job_has_a_flat_configuration_choices_and_estimates(tmp_path):
    write_job(tmp_path / "a", records_of([20.0, 22.0, None]), base_config(data=node("x", limit=None, ids=[1, 2])))
    (job,) = read_jobs(tmp_path)
    assert job.error is None and job.choices["solver"] == "dps"
    assert job.config["solver.zeta"] == 1.0 and job.config["data.ids"] == [1, 2] and job.config["callbacks"] == {}
    found = job.estimate("single", "psnr")
    assert (found.mean, found.n) == (21.0, 2) and found.se == pytest.approx(sqrt(2) / sqrt(2))
    assert job.estimate("single", "lpips") is None and job.estimate("posterior_mean", "psnr") is None
    assert job.seconds.mean == 1.0 and job.cost("peak_memory_mib") == 512.0


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.yaml", "", "config.yaml is damaged: it holds no configuration"),
        ("config.yaml", "config: {a: [1, ", "config.yaml is damaged: line"),
        ("config.yaml", "config: 3", "config.yaml is damaged: it holds no configuration"),
        ("config.yaml", "confi", "config.yaml is damaged: it holds no configuration"),
        ("config.yaml", b"config: \xff\xfe", "config.yaml is damaged"),
        ("config.yaml", "config: {}\nchoices: 5", "config.yaml is damaged"),
        ("summary.json", '{"title": ', "summary.json is damaged: Expecting value"),
        ("summary.json", "[]", "summary.json is damaged"),
        ("summary.json", b"\xff", "summary.json is damaged"),
        ("summary.json", '{"complete": true}', "summary.json is damaged: images: Field required"),
        ("error.txt", "Traceback\n  line\nValueError: bad zeta\n\n", "ValueError: bad zeta"),
        ("error.txt", "", "failed without a message"),
    ],
)
def test_a_damaged_job_is_a_failed_job_that_says_why(tmp_path, name, content, says):
    write_job(tmp_path / "good", records_of([20.0, 21.0]))
    bad = write_job(tmp_path / "bad", records_of([30.0, 31.0]))
    (bad / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    first, second = read_jobs(tmp_path)
    assert first.summary is None and first.error.startswith(says) and "\n" not in first.error
    assert second.error is None
    board = ranked(tmp_path)
    assert [row.job.folder.name for row in board.rows] == ["good"] and f"bad: {says}" in board.text
    last = csv_rows(csv_text(board))[-1]
    assert last["folder"] == "bad" and last["error"].startswith(says) and last["rank"] == last["single.psnr.mean"] == ""


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("statistics", "single", "psnr"), "high"),
        (("statistics", "single", "psnr", "mean"), "20"),
        (("statistics", "single"), 3),
        (("cost", "seconds"), 2.0),
        (("cost",), None),
        (("metrics",), "psnr"),
        (("failed",), None),
    ],
)
def test_a_summary_that_does_not_fit_the_schema_is_damaged(tmp_path, path, value):
    folder = write_job(tmp_path / "a", records_of([20.0, 21.0]))
    summary = json.loads((folder / "summary.json").read_text())
    place = summary
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (folder / "summary.json").write_text(json.dumps(summary))
    (job,) = read_jobs(tmp_path)
    assert job.summary is None and job.error.startswith(f"summary.json is damaged: {'.'.join(path)}")


def test_unfinished_and_incomplete_jobs_have_failed(tmp_path):
    write_job(tmp_path / "running", records_of([20.0]), finished=False)
    halved = write_job(tmp_path / "incomplete", records_of([20.0, 21.0]))
    summary = json.loads((halved / "summary.json").read_text())
    (halved / "summary.json").write_text(json.dumps(summary | {"complete": False}))
    (tmp_path / "never").mkdir()
    (tmp_path / "never" / "error.txt").write_text("conf.command.Stop: zeta=x is of the wrong kind\n")
    errors = {job.folder.name: job.error for job in read_jobs(tmp_path)}
    assert errors == {
        "incomplete": "incomplete: stopped after 2 images",
        "never": "conf.command.Stop: zeta=x is of the wrong kind",
        "running": "no summary.json: stopped early, or still running",
    }
    assert swept_parameters(read_jobs(tmp_path)) == []  # a job without a configuration varies nothing


def test_an_error_about_some_images_keeps_the_values_of_the_others(tmp_path):
    records = [record("a", psnr=20.0, ssim=0.5), record("b", error="not finite after step 3 of 250")]
    some, all_ = write_job(tmp_path / "some", records), write_job(tmp_path / "all", records[1:])
    for folder, count in ((some, "1 of 2"), (all_, "1 of 1")):
        (folder / "error.txt").write_text(f"Traceback\nconf.command.Stop: {count} failed; b: not finite after step 3 of 250\n")
    old = write_job(tmp_path / "old", records)
    (old / "error.txt").write_text("RuntimeError: out of memory\n")
    found = {job.folder.name: job.error is None for job in read_jobs(tmp_path)}
    assert found == {"some": True, "all": False, "old": False}
    assert "some: 1 of 2 restorations failed" in ranked(tmp_path).text


def test_a_job_that_is_not_applicable_has_no_rank_and_is_no_failure(tmp_path):
    """not_applicable.txt also invalidates the results of an earlier run in the folder; error.txt is not hidden by it."""
    reason = "solver=ddrm needs an operator with a spectrum; operator=phase_retrieval has none | *"
    dps(tmp_path / "done", 1.0, records_of([20.0, 21.0]))
    for name, files in (("alone", 0), ("again", 1), ("broken", 2)):
        folder = dps(tmp_path / name, 2.0, records_of([30.0, 31.0])) if files else tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "not_applicable.txt").write_text(f"{reason}\n")
        if files == 2:
            (folder / "error.txt").write_text("OSError: no space\n")
    board = write_leaderboard(tmp_path)
    assert [row.job.folder.name for row in board.rows] == ["done"]
    assert [(job.folder.name, job.not_applicable, job.error, job.summary) for job in board.not_applicable] == [
        ("again", reason, None, None),
        ("alone", reason, None, None),
    ]
    assert [job.folder.name for job in board.failed] == ["broken"]
    assert board.text.endswith(f"Failed:\n  broken: OSError: no space\n\nNot applicable:\n  again: {reason}\n  alone: {reason}")
    rows = {
        row["folder"]: (row["rank"], row["error"], row["not_applicable"]) for row in csv_rows((tmp_path / "leaderboard.csv").read_text())
    }
    assert rows == {
        "done": ("1", "", ""),
        "broken": ("", "OSError: no space", ""),
        "again": ("", "", reason),
        "alone": ("", "", reason),
    }
    text = (tmp_path / "leaderboard.md").read_text()
    assert "## Not applicable" in text and text.count(r"has none \| \*") == 2 and "4 jobs" in text
    page = (tmp_path / "leaderboard.html").read_text()
    assert "1 finished, 1 failed, 2 not applicable" in page and page.count("operator=phase_retrieval has none") == 2
