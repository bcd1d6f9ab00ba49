"""The jobs of a sweep, its parameters, the order of the jobs, and the files of the leaderboard read back."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from html.parser import HTMLParser
from math import sqrt

import pytest
from PIL import Image
from sweep_folder import base_choices, base_config, node, record, records_of, write_job

from diffusion_priors.evaluation.reporting.charts import PAGE_COLOURS, inline_svg, png
from diffusion_priors.evaluation.statistics import Estimate
from diffusion_priors.evaluation.summary import summarise
from diffusion_priors.evaluation.sweeps.jobs import read_jobs
from diffusion_priors.evaluation.sweeps.leaderboard import csv_text, draw_plots, write_leaderboard
from diffusion_priors.evaluation.sweeps.parameters import swept_parameters
from diffusion_priors.evaluation.sweeps.plots import Line, Point, metric_plot, pareto_plot, pareto_set
from diffusion_priors.evaluation.sweeps.ranking import Leaderboard

DPS, SDEDIT = "diffusion_priors.solvers.dps.DPS", "diffusion_priors.solvers.sdedit.SDEdit"


def dps(folder, zeta, records=(), **changes):
    return write_job(folder, records, base_config(solver=node(DPS, zeta=zeta), **changes))


def sdedit(folder, t_star, records=(), **changes):
    return write_job(folder, records, base_config(solver=node(SDEDIT, t_star=t_star), **changes), base_choices(solver="sdedit"))


def columns(root) -> dict[str, list[str]]:
    """Parameter → its text in each job; the jobs are sorted by folder."""
    jobs = read_jobs(root)
    return {p.name: [p.text(job) for job in jobs] for p in swept_parameters(jobs)}


def csv_rows(text: str) -> list[dict]:
    return list(csv.DictReader(io.StringIO(text)))


def ranked(root, objective: str = "psnr") -> Leaderboard:
    """The leaderboard without its files."""
    return Leaderboard(root, read_jobs(root), objective)


# Reading jobs.


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
        ("config.yaml", "config: {a: [1, ", "config.yaml is damaged: while parsing"),
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
        (("statistics", "single", "psnr", "low"), float("nan")),
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


def test_an_objective_of_unknown_direction_is_said_to_be_one(tmp_path):
    for name, value in (("a", 1.0), ("b", 3.0)):
        folder = dps(tmp_path / name, value, [record("x", psnr=20.0) | {"mine": value, "mine_measurement": None}])
        summary = summarise(name, [json.loads((folder / "records.jsonl").read_text())], [], ("psnr", "mine"), 1)
        (folder / "summary.json").write_text(json.dumps(summary))
    board = ranked(tmp_path, "mine")
    assert [row.job.folder.name for row in board.rows] == ["b", "a"]
    assert "The direction of mine is not known: the order assumes that higher is better" in board.text
    assert "direction" not in ranked(tmp_path).text


# The varied parameters.


def test_a_solver_is_named_by_its_option_and_a_parameter_of_one_solver_is_empty_for_others(tmp_path):
    dps(tmp_path / "a", 0.3)
    dps(tmp_path / "b", 1.0)
    sdedit(tmp_path / "c", 250)
    assert columns(tmp_path) == {"solver": ["dps", "dps", "sdedit"], "zeta": ["0.3", "1", ""]}


def test_arguments_that_follow_from_the_option_are_not_columns(tmp_path):
    gaussian = node("diffusion_priors.operators.blur.DeblurGaussian", size=9, std=1.5)
    motion = node("diffusion_priors.operators.blur.DeblurMotion", size=15, intensity=0.5)
    for name, operator, option in (("a", gaussian, "deblur_gaussian"), ("b", motion, "deblur_motion")):
        write_job(tmp_path / name, config=base_config(operator=operator), choices=base_choices(operator=option))
    assert columns(tmp_path) == {"operator": ["deblur_gaussian", "deblur_motion"]}
    write_job(tmp_path / "c", config=base_config(operator=motion | {"size": 31}), choices=base_choices(operator="deblur_motion"))
    assert columns(tmp_path) == {"operator": ["deblur_gaussian", "deblur_motion", "deblur_motion"], "size": ["9", "15", "31"]}


def test_a_nested_group_is_a_column_if_it_varies_within_one_option_of_the_outer_group(tmp_path):
    def job(name, annealing, option, **arguments):
        solver = node("diffusion_priors.solvers.score_ald.ScoreALD", annealing=node(annealing, **arguments))
        choices = base_choices(solver="score_ald") | {"annealing@solver.annealing": option}
        write_job(tmp_path / name, config=base_config(solver=solver), choices=choices)

    dps(tmp_path / "a", 1.0)
    job("b", "diffusion_priors.solvers.annealing.Likelihood", "likelihood")
    assert columns(tmp_path) == {"solver": ["dps", "score_ald"]}
    job("c", "diffusion_priors.solvers.annealing.Power", "power", exponent=1.0)
    assert columns(tmp_path) == {"solver": ["dps", "score_ald", "score_ald"], "annealing": ["", "likelihood", "power"]}
    job("d", "diffusion_priors.solvers.annealing.Power", "power", exponent=2.0)
    assert columns(tmp_path)["exponent"] == ["", "", "1", "2"]


def test_options_of_one_class_are_named_by_option_and_classes_of_one_option_by_class(tmp_path):
    for name, option, size in (("a", "small", 64), ("b", "large", 256)):
        config, choices = base_config(prior=node("p.Prior", size=size)), base_choices(prior=option)
        write_job(tmp_path / "one" / name, config=config, choices=choices)
    assert columns(tmp_path / "one") == {"prior": ["small", "large"]}
    for name, target in (("a", "p.First"), ("b", "p.Second")):
        write_job(tmp_path / "two" / name, config=base_config(prior=node(target)), choices=base_choices(prior="custom"))
    assert columns(tmp_path / "two") == {"prior": ["First", "Second"]}


def test_a_component_that_is_left_out_is_null(tmp_path):
    for name, lpips in (("a", None), ("b", node("diffusion_priors.evaluation.metrics.lpips.LPIPS", net="alex", trunk=None))):
        write_job(tmp_path / name, config=base_config(metrics={"lpips": lpips}))
    assert columns(tmp_path) == {"lpips": ["null", "LPIPS"]}


@pytest.mark.parametrize(("precision", "found"), [(("32", "32"), {}), (("32", "bf16"), {"precision": ["32", "bf16"]})])
def test_where_a_job_ran_is_not_a_parameter_but_its_precision_is(tmp_path, precision, found):
    for i, name in enumerate("ab"):
        machine = node("t.T", accelerator=name, devices=i, num_nodes=i, strategy=name, threads=i, precision=precision[i])
        beside = {"logger": node(f"l.{name}", project=name), "callbacks": {name: node("c.C")}, "table": {"row": name, "place": i}}
        config = base_config(output_dir=name, overwrite=bool(i), trainer=machine, **beside)
        write_job(tmp_path / name, config=config, choices=base_choices(logger=name, trainer="cpu"))
    assert columns(tmp_path) == found


def test_names_are_as_short_as_they_are_unique(tmp_path):
    for i, name in enumerate("ab"):
        write_job(tmp_path / name, config=base_config(data={"size": i, "root": name}, prior={"size": i}))
    assert list(columns(tmp_path)) == ["data.size", "root", "prior.size"]


def test_values_are_printed_as_a_user_types_them(tmp_path):
    values = [0.30000000000000004, 2, True, None, [128, 64], "deep blue", {}]
    for i, value in enumerate(values):
        write_job(tmp_path / str(i), config=base_config(x=value))
    write_job(tmp_path / "7")
    assert columns(tmp_path) == {"x": ["0.3", "2", "true", "null", "[128, 64]", "deep blue", "{}", ""]}


def test_1_equals_1_0_but_not_true(tmp_path):
    for name, value in (("a", 1), ("b", 1.0)):
        dps(tmp_path / name, value)
    assert columns(tmp_path) == {}
    dps(tmp_path / "c", True)
    assert columns(tmp_path) == {"zeta": ["1", "1", "true"]}


def test_a_sigma_is_printed_on_both_scales(tmp_path):
    for name, sigma in (("a", 0.05), ("b", 0.1)):
        write_job(
            tmp_path / name,
            records_of([20.0, 21.0]),
            base_config(noise_model=node("diffusion_priors.operators.noise_models.Gaussian", sigma=sigma)),
        )
    board = ranked(tmp_path)
    assert "sigma in [-1, 1]" in board.text and "0.05 = 0.025 in [0, 1]" in board.text
    assert [row["noise_model.sigma"] for row in csv_rows(csv_text(board))] == ["0.05", "0.1"]


# Order and differences.


def test_the_best_job_by_the_objective_is_first_and_jobs_without_a_value_are_last(tmp_path):
    for name, psnr, lpips in (("a", 20.0, 0.3), ("b", 30.0, 0.2), ("c", 25.0, 0.1), ("d", None, None)):
        dps(tmp_path / name, ord(name), [record("x", psnr=psnr, lpips=lpips)])

    def order(objective):
        return "".join(row.job.folder.name for row in ranked(tmp_path, objective).rows)

    assert (order("psnr"), order("lpips"), order("ssim")) == ("bcad", "cbad", "abcd")
    with pytest.raises(ValueError, match="objective=fid is unknown; set objective to one of psnr, ssim, lpips"):
        ranked(tmp_path, "fid")


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


# Files.


WITH_REPORT = "steps=50,zeta=3.0"


def fill(root) -> None:
    """A sweep over two solvers, their parameters and the number of steps, and a failed job."""
    rng = random.Random(1)
    for steps in (50, 1000):
        grid = node("g.Linspace", steps=steps)
        for zeta in (0.1, 1.0, 3.0):
            psnr = [rng.gauss(25 + zeta, 1) for _ in range(4)]
            records = records_of(psnr, [0.3 - zeta / 20 + rng.random() / 50 for _ in psnr], seconds=steps / 50 + rng.random())
            dps(root / f"steps={steps},zeta={zeta}", zeta, records, grid=grid)
        sdedit(root / f"steps={steps},t_star=500", 500, records_of([20.0, 21.0], [0.4, 0.5], seconds=0.1 * steps), grid=grid)
    failed = dps(root / "zeta=a b#%|c", 9.0, grid=node("g.Linspace", steps=50))
    (failed / "error.txt").write_text("RuntimeError: <b>a | b</b> *now*\n")


@pytest.fixture(scope="module")
def board(tmp_path_factory) -> Leaderboard:
    """The leaderboard of the sweep of `fill`, with its files; one job has a report."""
    root = tmp_path_factory.mktemp("sweep")
    fill(root)
    (root / WITH_REPORT / "report.html").write_text("x")
    return write_leaderboard(root)


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


class Page(HTMLParser):
    """The links, ids, text and table rows of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links, self.ids, self.rows, self.tags = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs["href"]] if tag == "a" else []
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append(attrs)


def test_page_links_every_job_escapes_its_texts_and_sorts_by_all_digits(board):
    text = (board.root / "leaderboard.html").read_text()
    page, best = Page(text), board.rows[0].job
    names = [board.name(job).replace("=", "%3D").replace(",", "%2C") for job in board.jobs[:-1]] + ["zeta%3Da%20b%23%25%7Cc"]
    report = f"{WITH_REPORT.replace('=', '%3D').replace(',', '%2C')}/report.html"
    assert set(page.links) == {"leaderboard.csv", *(f"{name}/" for name in names), report}
    assert "<b>a" not in text and "&lt;b&gt;a" in text
    assert page.tags.count("svg") == 7 and len(page.ids) == len(set(page.ids))
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


# Plots.


def dominates(a, b) -> bool:
    return a != b and a[0] <= b[0] and a[1] <= b[1]


@pytest.mark.parametrize("seed", range(30))
def test_pareto_set_is_what_nothing_dominates(seed):
    rng = random.Random(seed)
    points = [(rng.randrange(8), rng.randrange(8)) for _ in range(rng.randrange(1, 20))]
    found = pareto_set(points)
    assert sorted(found) == [i for i, point in enumerate(points) if not any(dominates(other, point) for other in points)]
    assert [points[i][0] for i in found] == sorted(points[i][0] for i in found)


def test_pareto_plot_prefers_high_psnr_low_lpips_and_little_time(tmp_path):
    for name, psnr, lpips, seconds in (("a", 20.0, 0.1, 1.0), ("b", 30.0, 0.3, 2.0), ("c", 10.0, 0.05, 30.0), ("d", 40.0, 0.2, 40.0)):
        dps(tmp_path / name, ord(name), records_of([psnr], [lpips], seconds=seconds))
    axes = draw_plots(ranked(tmp_path))["pareto"].axes[0]
    assert [text.get_text() for text in axes.texts] == ["zeta 97", "zeta 99"] and axes.get_xscale() == "log"
    for path in tmp_path.glob("*/summary.json"):
        summary = json.loads(path.read_text())
        summary["statistics"]["single"]["lpips"] = None
        path.write_text(json.dumps(summary))
    axes = draw_plots(ranked(tmp_path))["pareto"].axes[0]
    assert [text.get_text() for text in axes.texts] == ["zeta 97", "zeta 98", "zeta 100"]


def drawn(figure) -> dict[str, tuple[list, list, list]]:
    """Line's label → x, mean and the ends of its interval, as drawn."""
    found = {}
    for bars in figure.axes[0].containers:
        ends = [segment[:, 1].tolist() for segment in bars.lines[2][0].get_segments()]
        found[bars.get_label()] = (bars.lines[0].get_xdata().tolist(), bars.lines[0].get_ydata().tolist(), ends)
    return found


def test_a_plot_has_a_line_for_each_combination_of_the_other_parameters(board):
    plots = draw_plots(board)
    assert [name for name in plots if name.startswith("psnr")] == ["psnr-by-zeta", "psnr-by-steps"]  # t_star never varied
    by_zeta = drawn(plots["psnr-by-zeta"])
    assert list(by_zeta) == ["steps 50", "steps 1000"] and plots["psnr-by-zeta"].axes[0].get_title(loc="left") == "PSNR (dB) ↑ by zeta: dps"
    assert list(drawn(plots["psnr-by-steps"])) == ["dps, zeta 0.1", "dps, zeta 1", "dps, zeta 3", "sdedit"]
    jobs = [job for job in board.jobs if job.summary and job.config["grid.steps"] == 50 and "solver.zeta" in job.config]
    for x, mean, ends in zip(*by_zeta["steps 50"], strict=True):
        found = next(job for job in jobs if job.config["solver.zeta"] == x).estimate("single", "psnr")
        assert mean == pytest.approx(found.mean) and ends == pytest.approx([found.low, found.high])
    assert by_zeta["steps 50"][0] == [0.1, 1.0, 3.0]
    figure = plots["psnr-by-zeta"]
    figure.draw_without_rendering()
    low, high = figure.axes[0].get_ylim()
    assert all(low < end < high for line in by_zeta.values() for pair in line[2] for end in pair)


@pytest.mark.parametrize(
    ("values", "scale"),
    [((1, 10), "linear"), ((1, 10.5), "log"), ((0, 5), "linear"), ((0, 1, 20), "symlog"), ((-1, 1, 20), "linear"), ((0.001, 0.1), "log")],
)
def test_the_axis_is_logarithmic_beyond_a_decade(values, scale):
    estimates = [Estimate(float(i), 0.1, i - 0.2, i + 0.2, 4) for i, _ in enumerate(values)]
    axes = metric_plot([Line("", values, estimates)], "x", "y", "z").axes[0]
    assert axes.get_xscale() == scale
    assert axes.get_xlim()[0] < min(values) and axes.get_xlim()[1] > max(values)
    assert axes.get_xticks().tolist() == list(values)
    points = [Point("", x + 2, found, True) for x, found in zip(values, estimates, strict=True)]
    assert pareto_plot(points, "x", "y", "z").axes[0].get_xscale() in ("linear", "log")


def test_labels_do_not_overlap_and_stay_inside_the_frame():
    points = [Point(f"a job with a name {i}", 1.0 + i / 50, Estimate(20.0 + i / 50, None, None, None, 1), True) for i in range(4)]
    figure = pareto_plot([*points, Point("", 5.0, Estimate(15.0, 1.0, 13.0, 17.0, 3), False)], "x", "y", "z")
    axes = figure.axes[0]
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    frame = axes.get_window_extent()
    assert len(boxes) == 4 and all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_plot_becomes_a_png_file_or_an_svg_element(tmp_path):
    figure = metric_plot([Line("a < b & c", [1, 2], [Estimate(1.0, None, None, None, 1)] * 2)] * 2, "x", "y", "z")
    (tmp_path / "a.png").write_bytes(png(figure))
    assert Image.open(tmp_path / "a.png").size[0] > 900
    text = inline_svg(figure, "name")
    assert text.startswith("<svg") and text.rstrip().endswith("</svg>") and "a &lt; b &amp; c" in text
    assert not any(colour in text for colour in PAGE_COLOURS)
    other = inline_svg(figure, "another name")
    assert Page(text).ids and not set(Page(text).ids) & set(Page(other).ids)
