"""evaluate.py exact_problem=… and experiment=exact_posterior as a user runs them."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from forks import ROOT, Run

FAST = ["exact_problem.samples=40", "exact_problem.posteriors=1", "exact_problem.measurements=0", "exact_problem.ranks=9", "grid.steps=4"]


def evaluate(folder: Path, *overrides: str, code: int = 0):
    done = Run(folder, *overrides).wait()
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done


def test_a_run_leaves_its_figures_and_is_found_again(tmp_path):
    line = ["exact_problem=random_4", "solver=dps", "output_dir=run", *FAST]
    told = evaluate(tmp_path, *line).stdout
    assert "exact samples" in told
    found = json.loads((tmp_path / "run" / "exact_posterior.json").read_text())
    assert found["problem"] == "random_4"
    assert found["solver"] == "dps"
    assert found["nfe_forward"] == found["nfe_vjp"] == found["steps"] == 4
    assert found["runs"] == 40
    assert found["failed"] == 0
    assert set(found["figures"]) == set(found["floor"]) == {"w2", "mean", "covariance", "spread", "inside_50", "inside_95", "ranks"}
    assert found["figures"]["ranks"] is None
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["config"]["exact_problem"]["samples"] == 40
    assert {"overrides", "command", "source"} <= set(config)
    written = (tmp_path / "run" / "exact_posterior.json").stat().st_mtime_ns
    assert evaluate(tmp_path, *line).stdout == told
    assert (tmp_path / "run" / "exact_posterior.json").stat().st_mtime_ns == written
    refused = evaluate(tmp_path, *line, "seed=3", code=2).stderr
    assert "overwrite=true" in refused
    evaluate(tmp_path, *line, "seed=3", "overwrite=true")
    assert json.loads((tmp_path / "run" / "exact_posterior.json").read_text())["figures"] != found["figures"]


def test_what_is_tuned_for_the_problem_is_taken_unless_the_line_says_otherwise(tmp_path):
    tuned = yaml.safe_load((ROOT / "conf" / "exact_problem" / "random_4.yaml").read_text())["exact_problem"]["tuned"]["dps"]["zeta"]

    def zeta(*overrides: str) -> float:
        evaluate(tmp_path, "exact_problem=random_4", *overrides, *FAST, "output_dir=run", "overwrite=true")
        return json.loads((tmp_path / "run" / "exact_posterior.json").read_text())["settings"]["solver"]["zeta"]

    assert zeta() == tuned != 1.0
    assert zeta("solver.zeta=0.7") == 0.7
    assert zeta("exact_problem.tuned=null") == 1.0


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "exact_problem").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_setting_tuned_is_one_of_its_solver(path):
    tuned = yaml.safe_load(path.read_text())["exact_problem"]["tuned"]
    assert yaml.safe_load(path.read_text())["exact_problem"]["name"] == path.stem
    for solver, settings in tuned.items():
        shown = yaml.safe_load((ROOT / "conf" / "solver" / f"{solver}.yaml").read_text())
        annealing = yaml.safe_load((ROOT / "conf" / "annealing" / "likelihood.yaml").read_text())
        known = set(shown) | {f"annealing.{key}" for key in annealing if "defaults" in shown}
        assert set(settings) <= known - {"_target_", "defaults"}


def test_a_sweep_ends_in_one_table_with_images_and_a_page(tmp_path):
    """Two problems and three solvers, one of them the user's own by being named; every figure of the jobs is in the table."""
    line = [
        "-m",
        "experiment=exact_posterior",
        "exact_problem=box,two_modes",
        "solver=dps,unconditional,tweedie",
        "grid.steps=3",
        "output_dir=sweep",
    ]
    told = evaluate(tmp_path, *line).stdout
    sweep = tmp_path / "sweep"
    table = told[told.rindex("problem ") :]
    assert table.count("exact samples") == 2
    for name in ("dps zeta=", "unconditional", "tweedie t="):
        assert table.count(name) == 2
    rows = list(csv.DictReader((sweep / "table.csv").open()))
    assert len(rows) == 6
    for row in rows:
        assert float(row["w2"]) > float(row["w2_exact"]) > 0.0
    assert (sweep / "table.md").read_text().count("\n") == 2 + 2 + 6
    assert {path.name for path in (sweep / "plots").iterdir()} == {
        *("box-maps.png", "box-ranks.png", "two_modes-samples.png", "two_modes-ranks.png")
    }
    page = (sweep / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert not re.search(r"(src|href)=\"(https?:)?//", page)
    floors = {json.loads(path.read_text())["floor"]["w2"] for path in sweep.glob("*exact_problem=box*/exact_posterior.json")}
    assert len(floors) == 1
    kept = np.load(next(sweep.glob("*exact_problem=box*solver=dps*")) / "clouds.npz")
    assert kept["solved_std"].shape == (24 * 24,)


def test_tuning_is_a_sweep_on_problems_drawn_anew(tmp_path):
    told = evaluate(
        tmp_path,
        "-m",
        "experiment=tune_exact_posterior",
        "exact_problem=random_2",
        "solver=dps",
        "solver.zeta=0.1,0.5",
        "grid.steps=3",
        "output_dir=t",
    ).stdout
    assert "dps zeta=0.1" in told
    assert "dps zeta=0.5" in told
    settings = [json.loads(path.read_text())["settings"] for path in (tmp_path / "t").glob("*/exact_posterior.json")]
    assert [(one["seed"], one["operator"]["seed"], one["exact_problem"]["measurements"]) for one in settings] == [(1, 1, 0)] * 2


def test_every_solver_of_conf_is_judged(tmp_path):
    """experiment=exact_posterior, on one problem and with four steps: a solver joins by being a file in conf/solver, problems likewise."""
    told = evaluate(tmp_path, "-m", "experiment=exact_posterior", "exact_problem=random_2", "grid.steps=4", "output_dir=sweep").stdout
    found = {json.loads(path.read_text())["solver"] for path in (tmp_path / "sweep").glob("*/exact_posterior.json")}
    assert found == {path.stem for path in (ROOT / "conf" / "solver").glob("*.yaml")}
    assert told.rstrip().endswith("report.html")
    swept = yaml.safe_load((ROOT / "conf" / "experiment" / "truth.yaml").read_text())["hydra"]["sweeper"]["params"]
    assert swept == {"problem": "glob(*)", "solver": "glob(*)"}


REFUSED = [
    (["prior=custom", "prior.network._target_=broken_networks.Shrink", "prior.checkpoint=null", "prior.size=[4,4]"], "prior=gaussian"),
    (["noise_model=poisson", "~noise_model.sigma"], "noise_model=gaussian"),
    (["exact_problem.ranks=12"], "exact_problem.ranks"),
    (["exact_problem.samples=none"], "exact_problem.samples"),
    (["prior.size=[64,64]"], "prior.size"),
    (["solver=sdedit", "solver.t_star=2000"], "solver.t_star"),
    (["grid.steps=2000"], "grid.steps"),
    (["batch_size=0"], "batch_size"),
    (["data.root=images"], "data.root"),
    (["prior.covariance.std=0"], "prior.covariance.std"),
]


@pytest.mark.parametrize(("overrides", "told"), REFUSED, ids=[told for _, told in REFUSED])
def test_what_cannot_work_is_told_in_one_line(overrides, told, tmp_path):
    done = evaluate(tmp_path, "exact_problem=box", *overrides, "output_dir=run", code=2)
    assert done.stderr.count("\n") == 1, done.stderr
    assert told in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_prior_without_weights_is_not_trained(tmp_path):
    done = Run(tmp_path, "prior=gaussian", f"data.root={ROOT / 'examples' / 'faces'}", "output_dir=run", script="train.py").wait()
    assert done.returncode == 2, done.stderr
    assert "without weights to train" in done.stderr


def lines() -> list[str]:
    """The commands of docs/exact_posterior.md."""
    text = (ROOT / "docs" / "exact_posterior.md").read_text(encoding="utf-8")
    return [line for block in re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) for line in block.splitlines() if line]


def quick(line: str) -> list[str]:
    """A line with the first value of each list, and two steps."""
    words = [re.sub(r"(=[^,]*),.*", r"\1", word) for word in line.split()[1:] if not word.startswith("grid.steps=")]
    if words[0] == "sample.py":
        return [*words, "grid.steps=2", "metrics.lpips=null", "trainer.accelerator=cpu", "overwrite=true"]  # two start in one second
    only = [] if any(word.startswith("exact_problem=") for word in words) else ["hydra.sweeper.params.exact_problem=two_modes"]
    return [*words, "grid.steps=2", *only]


@pytest.mark.slow
def test_every_line_of_the_page_runs(tmp_path):
    assert len(lines()) >= 15
    for line in lines():
        script, *overrides = quick(line)
        done = Run(tmp_path, *overrides, script=script).wait()
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert done.stdout.strip(), line


def test_the_page_shows_what_is_tuned():
    """Each solver's settings in the table of docs/exact_posterior.md are those in conf/exact_problem."""
    shown, problem = {}, ""
    for line in (ROOT / "docs" / "exact_posterior.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 11:
            problem = cells[0] or problem
            solver, *settings = cells[1].replace("exact samples", "exact").split()
            shown[problem, solver] = {key: float(value) for key, value in (setting.split("=") for setting in settings if "=" in setting)}
    for path in (ROOT / "conf" / "exact_problem").glob("*.yaml"):
        for solver, settings in yaml.safe_load(path.read_text())["exact_problem"]["tuned"].items():
            wanted = {key.rsplit(".", 1)[-1]: value for key, value in settings.items()}
            assert shown[path.stem, solver] == wanted, (path.stem, solver)
