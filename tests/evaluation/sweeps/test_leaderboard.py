"""The order of the jobs, their differences, and the files of the leaderboard read back."""

from __future__ import annotations

import json
import random
import re

import pytest
from html_page import HtmlPage
from sweep_folder import base_config, node, record, records_of, write_job
from swept_jobs import DPS, WITH_REPORT, csv_rows, dps, fill, ranked

from diffusion_priors.evaluation.summary import summarise
from diffusion_priors.evaluation.sweeps.leaderboard import csv_text, draw_plots, write_leaderboard


def test_the_best_job_by_the_objective_is_first_and_jobs_without_a_value_are_last(tmp_path):
    for name, psnr, lpips in (("a", 20.0, 0.3), ("b", 30.0, 0.2), ("c", 25.0, 0.1), ("d", None, None)):
        dps(tmp_path / name, ord(name), [record("x", psnr=psnr, lpips=lpips)])

    def order(objective):
        return "".join(row.job.folder.name for row in ranked(tmp_path, objective).rows)

    assert (order("psnr"), order("lpips"), order("ssim")) == ("bcad", "cbad", "abcd")
    with pytest.raises(ValueError, match="objective=fid is unknown; set objective to one of psnr, ssim, lpips"):
        ranked(tmp_path, "fid")


def test_an_objective_of_unknown_direction_is_said_to_be_one(tmp_path):
    for name, value in (("a", 1.0), ("b", 3.0)):
        folder = dps(tmp_path / name, value, [record("x", psnr=20.0) | {"mine": value, "mine_measurement": None}])
        summary = summarise(name, [json.loads((folder / "records.jsonl").read_text())], [], ("psnr", "mine"), 1)
        (folder / "summary.json").write_text(json.dumps(summary))
    board = ranked(tmp_path, "mine")
    assert [row.job.folder.name for row in board.rows] == ["b", "a"]
    assert "The direction of mine is not known: the order assumes that higher is better" in board.text
    assert "direction" not in ranked(tmp_path).text


def test_the_difference_to_the_best_is_paired_by_image_and_measurement(tmp_path):
    rng = random.Random(0)
    hard = [rng.gauss(25, 4) for _ in range(8)]
    worse = [value - 0.5 + 0.1 * (-1) ** i for i, value in enumerate(hard)]
    dps(tmp_path / "best", 1.0, records_of(hard))
    dps(tmp_path / "worse", 2.0, records_of(worse))
    dps(tmp_path / "tied", 3.0, records_of([value - 0.01 + 0.5 * (-1) ** i for i, value in enumerate(hard)]))
    dps(tmp_path / "elsewhere", 4.0, records_of(worse, y="other"))
    dps(tmp_path / "fewer", 5.0, records_of(worse[:3]))
    board = ranked(tmp_path)
    found = {row.job.folder.name: row.difference for row in board.rows}
    assert found["best"] is None and found["elsewhere"] is None
    assert found["worse"].mean == pytest.approx(-0.5) and found["worse"].n == 8 and found["worse"].high < 0
    assert found["fewer"].n == 3 and found["fewer"].mean == pytest.approx(-0.5 + 0.1 / 3)
    assert [row.job.folder.name for row in board.rows if row.is_tied] == ["tied"]
    assert re.search(r"Not significantly different from the best .*: zeta 3$", board.text, re.MULTILINE)
    assert "No measurement in common with the best, so the means cannot be compared: 1 of 5 jobs" in board.text
    line = next(line for line in board.text.splitlines() if "  2  " in line and "−0.50" in line)
    low, high = (f"{value:+.2f}".replace("-", "−") for value in (found["worse"].low, found["worse"].high))
    assert line.rstrip().endswith(f"−0.50 [{low}, {high}]")
    rows = {row["folder"]: row for row in csv_rows(csv_text(board))}
    assert float(rows["worse"]["difference_to_best.psnr.mean"]) == found["worse"].mean
    assert rows["elsewhere"]["difference_to_best.psnr.mean"] == ""


def test_the_units_of_a_difference_are_images_not_samples(tmp_path):
    for name, shift in (("a", 1.0), ("b", 0.0)):
        records = [record(f"face-{i}", k, psnr=20.0 + i + shift + (1 if k else -1), ssim=0.5) for i in range(3) for k in range(2)]
        posterior = [{"id": f"face-{i}", "samples": 2, "psnr": 27.0 + i, "ssim": 0.9, "lpips": None, "deviation": 0.1} for i in range(3)]
        path = write_job(tmp_path / name, records, base_config(seed=shift), num_samples=2, posterior=posterior)
        assert json.loads((path / "summary.json").read_text())["num_samples"] == 2
    board = write_leaderboard(tmp_path)
    assert board.rows[1].difference.n == 3 and board.rows[1].difference.mean == pytest.approx(-1.0)
    first = csv_rows(csv_text(board))[0]
    assert float(first["posterior_mean.psnr.mean"]) == 28.0 and float(first["best_of_n.psnr.mean"]) == 23.0
    assert "posterior mean: PSNR (dB) ↑" in (tmp_path / "leaderboard.html").read_text()


def test_damaged_records_remove_the_difference_only(tmp_path):
    dps(tmp_path / "a", 1.0, records_of([20.0, 21.0]))
    bad = dps(tmp_path / "b", 2.0, records_of([18.0, 19.0]))
    (bad / "records.jsonl").write_text("{}\n{broken\n")
    board = ranked(tmp_path)
    assert board.rows[1].difference is None and board.rows[1].job.estimate("single", "psnr").mean == 18.5


def test_a_leaderboard_keeps_no_records_in_memory(board):
    """A large sweep has more of them than a machine has memory."""
    assert len(board.rows) > 1 and any(row.difference is not None for row in board.rows)
    assert not any("images" in vars(row.job) for row in board.rows)


def test_csv_holds_all_digits_of_every_value(board):
    rows = csv_rows((board.root / "leaderboard.csv").read_text())
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5", "6", "7", "8", ""]
    for row, entry in zip(rows, board.rows, strict=False):
        for block in ("single", "measurement"):
            for metric in ("psnr", "ssim", "lpips"):
                found = entry.job.estimate(block, metric)
                for key in ("mean", "se", "low", "high", "n"):
                    text = row[f"{block}.{metric}.{key}"]
                    assert (float(text) if text else None) == (getattr(found, key) if found else None)
        assert float(row["seconds.mean"]) == entry.job.seconds.mean and float(row["seconds.high"]) == entry.job.seconds.high
        assert (row["nfe_forward"], row["nfe_vjp"], row["peak_memory_mib"]) == ("250.0", "250.0", "512.0")
        assert row["folder"] == entry.job.folder.name and row["grid.steps"] == str(entry.job.config["grid.steps"])
        assert row["measurements"] == entry.job.summary["measurements"] and row["images"] == str(entry.job.summary["images"])
    assert {row["solver"] for row in rows} == {"dps", "sdedit"} and "solver._target_" not in rows[0]
    assert [row["solver.zeta"] for row in rows if row["solver"] == "sdedit"] == ["", ""]


def test_the_terminal_table_shows_mean_and_standard_error(tmp_path):
    dps(tmp_path / "a", 1.0, records_of([20.0, 22.0], [0.25, 0.35], seconds=2.5))
    dps(tmp_path / "b", 2.0, records_of([19.0], seconds=2.5))
    lines = ranked(tmp_path).text.splitlines()
    head = ["#", "zeta", "PSNR (dB) ↑", "SSIM ↑", "LPIPS ↓", "NFE forward + vjp", "seconds per image", "PSNR (dB) ↑ − best"]
    assert re.split(r"\s{2,}", lines[0].strip()) == head
    assert re.split(r"\s{2,}", lines[2].strip()) == [
        "1",
        "1",
        "21.00 ± 1.00",
        "0.500 ± 0.000",
        "0.300 ± 0.050",
        "250 + 250",
        "2.50",
        "best",
    ]
    assert re.split(r"\s{2,}", lines[3].strip()) == ["2", "2", "19.00", "0.500", "–", "250 + 250", "2.50", "−1.00"]


def test_without_lpips_the_footnote_says_why_and_the_pareto_plot_shows_psnr(tmp_path):
    for name, zeta in (("a", 1.0), ("b", 2.0)):
        records = records_of([20.0 + zeta, 21.0])
        write_job(tmp_path / name, records, base_config(solver=node(DPS, zeta=zeta)), footnote="LPIPS: no trunk | here")
    board = ranked(tmp_path)
    assert board.text.count("– *") == 2 and board.text.count("* LPIPS: no trunk | here") == 1
    plots = draw_plots(board)
    assert list(plots) == ["psnr-by-zeta", "ssim-by-zeta", "pareto"]
    assert plots["pareto"].axes[0].get_ylabel().startswith("PSNR")


def test_one_job_is_a_leaderboard_and_no_job_is_an_error(tmp_path):
    write_job(tmp_path / "only", records_of([20.0], [0.2]))
    board = ranked(tmp_path)
    assert board.parameters == [] and board.title(board.jobs[0]) == "only" and list(draw_plots(board)) == ["pareto"]
    assert "best" in board.text and "20.00" in board.text
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no job"):
        write_leaderboard(tmp_path / "empty")


def test_failed_jobs_alone_are_listed(tmp_path):
    write_job(tmp_path / "a", finished=False)
    assert write_leaderboard(tmp_path).text == "Failed:\n  a: no summary.json: stopped early, or still running"
    assert "stopped early" in (tmp_path / "leaderboard.html").read_text()


def test_jobs_without_any_score_have_neither_a_best_nor_plots(tmp_path):
    for seed in range(2):
        write_job(tmp_path / str(seed), [record("unconditional", y=None)], base_config(seed=seed))
    board = write_leaderboard(tmp_path)
    assert [row.difference for row in board.rows] == [None, None] and draw_plots(board) == {} and "best" not in board.text.split("\n")[2]
    assert 'class="best"' not in (tmp_path / "leaderboard.html").read_text()


def test_markdown_is_a_table_whatever_its_texts_contain(board):
    text = (board.root / "leaderboard.md").read_text()
    tables = [block.split("\n") for block in text.split("\n\n") if block.startswith("|")]
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert len(tables[0]) == 2 + 8 and len(tables[1]) == 2 + 1
    assert r"&lt;b>a \| b&lt;/b> \*now\*" in text
    images = re.findall(r"!\[.*\]\((plots/.*\.png)\)", text)
    assert len(images) == 7 and all((board.root / path).is_file() for path in images)


def test_page_links_every_job_escapes_its_texts_and_sorts_by_all_digits(board):
    text = (board.root / "leaderboard.html").read_text()
    page, best = HtmlPage(text), board.rows[0].job
    names = [board.name(job).replace("=", "%3D").replace(",", "%2C") for job in board.jobs[:-1]] + ["zeta%3Da%20b%23%25%7Cc"]
    report = f"{WITH_REPORT.replace('=', '%3D').replace(',', '%2C')}/report.html"
    assert set(page.all("a", "href")) == {"leaderboard.csv", *(f"{name}/" for name in names), report}
    assert "<b>a" not in text and "&lt;b&gt;a" in text
    assert [tag for tag, _ in page.elements].count("svg") == 7 and len(page.ids) == len(set(page.ids))
    assert all(f'id="{used}"' in text for used in re.findall(r"url\(#([^)]*)\)", text))
    assert {len(row) for row in page.rows[:9]} == {len(page.rows[0])}
    shown = [cell.get("data-value") for cell in page.rows[1]]
    assert str(best.estimate("single", "psnr").mean) in shown and str(best.seconds.mean) in shown


def test_the_same_jobs_give_the_same_bytes(board, tmp_path):
    fill(tmp_path)
    (tmp_path / WITH_REPORT / "report.html").write_text("x")
    write_leaderboard(tmp_path)
    files = sorted(path.relative_to(tmp_path) for path in [*tmp_path.glob("leaderboard*"), *(tmp_path / "plots").iterdir()])
    assert len(files) == 3 + 7
    assert [file for file in files if (tmp_path / file).read_bytes() != (board.root / file).read_bytes()] == []
