"""evaluate.py exact_problem=… and experiment=exact_posterior, run as a user runs them."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from documentation import commands
from forks import ROOT, Run

pytestmark = pytest.mark.script

TUNED = ROOT / "conf" / "tuned"
FAST = ["exact_problem.samples=40", "exact_problem.posteriors=1", "exact_problem.measurements=0", "exact_problem.ranks=9", "grid.steps=4"]


def evaluate(folder: Path, *overrides: str, code: int = 0):
    done = Run(folder, *overrides).wait()
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done


@pytest.mark.script
def test_a_run_writes_its_results_and_is_not_repeated(tmp_path):
    command = ["exact_problem=random_4", "solver=dps", "output_dir=run", *FAST]
    printed = evaluate(tmp_path, *command).stdout
    assert "exact samples" in printed
    found = json.loads((tmp_path / "run" / "exact_posterior.json").read_text())
    assert found["problem"] == "random_4"
    assert found["solver"] == "dps"
    assert found["nfe_forward"] == found["nfe_vjp"] == found["steps"] == 4
    assert found["samples"] == 40
    assert found["failed"] == 0
    assert set(found["distances"]) == set(found["floor"]) == {"w2", "mean", "covariance", "spread", "inside_50", "inside_95", "ranks"}
    assert found["distances"]["ranks"] is None
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["config"]["exact_problem"]["samples"] == 40
    assert {"overrides", "command", "source"} <= set(config)
    written = (tmp_path / "run" / "exact_posterior.json").stat().st_mtime_ns
    assert evaluate(tmp_path, *command).stdout == printed
    assert (tmp_path / "run" / "exact_posterior.json").stat().st_mtime_ns == written
    refused = evaluate(tmp_path, *command, "seed=3", code=2).stderr
    assert "overwrite=true" in refused
    evaluate(tmp_path, *command, "seed=3", "overwrite=true")
    assert json.loads((tmp_path / "run" / "exact_posterior.json").read_text())["distances"] != found["distances"]


@pytest.mark.script
def test_tuned_settings_apply_unless_the_command_overrides_them(tmp_path):
    tuned = yaml.safe_load((TUNED / "dps.yaml").read_text())["random_4"]["zeta"]

    def zeta(*overrides: str) -> float:
        evaluate(tmp_path, "exact_problem=random_4", *overrides, *FAST, "output_dir=run", "overwrite=true")
        return json.loads((tmp_path / "run" / "exact_posterior.json").read_text())["settings"]["solver"]["zeta"]

    assert zeta() == tuned != 0.25
    assert zeta("solver.zeta=0.7") == 0.7
    assert zeta("use_tuned=false") == 0.25


@pytest.mark.script
def test_a_tuned_setting_takes_the_place_of_null(tmp_path):
    assert yaml.safe_load((ROOT / "conf" / "solver" / "daps.yaml").read_text())["prior_variance"] is None
    evaluate(tmp_path, "exact_problem=random_4", "solver=daps", *FAST, "output_dir=run")
    settings = json.loads((tmp_path / "run" / "exact_posterior.json").read_text())["settings"]["solver"]
    assert settings["prior_variance"] == yaml.safe_load((TUNED / "daps.yaml").read_text())["random_4"]["prior_variance"]


@pytest.mark.script
def test_a_solver_without_tuned_settings_keeps_its_own(tmp_path):
    assert not (TUNED / "unconditional.yaml").exists()
    evaluate(tmp_path, "exact_problem=random_2", "solver=unconditional", *FAST, "output_dir=run")
    assert json.loads((tmp_path / "run" / "exact_posterior.json").read_text())["tuned"] == []


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "exact_problem").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_problem_has_the_name_of_its_file_and_knows_no_solver(path):
    content = yaml.safe_load(path.read_text())
    assert content["exact_problem"]["name"] == path.stem
    assert "solver" not in content


@pytest.mark.parametrize("path", sorted(TUNED.glob("*.yaml")), ids=lambda path: path.stem)
def test_tuned_settings_are_settings_of_their_solver_on_known_problems(path):
    shown = yaml.safe_load((ROOT / "conf" / "solver" / path.name).read_text())
    shown = shown.get("solver", shown)  # a solver that also chooses its sampler is written for the whole configuration
    annealing = yaml.safe_load((ROOT / "conf" / "annealing" / "likelihood.yaml").read_text())
    known = set(shown) | {f"annealing.{key}" for key in annealing if "defaults" in shown}
    for problem, settings in yaml.safe_load(path.read_text()).items():
        assert (ROOT / "conf" / "exact_problem" / f"{problem}.yaml").is_file()
        assert set(settings) <= known - {"_target_", "defaults"}


@pytest.mark.script
def test_a_sweep_ends_in_one_table_with_plots_and_a_page(tmp_path):
    """Two problems and three solvers: every run is in the table."""
    command = [
        "-m",
        "experiment=exact_posterior",
        "exact_problem=box,two_modes",
        "solver=dps,unconditional,tweedie",
        "grid.steps=3",
        "output_dir=sweep",
    ]
    printed = evaluate(tmp_path, *command).stdout
    sweep = tmp_path / "sweep"
    table = printed[printed.rindex("problem ") :]
    assert table.count("exact samples") == 2
    for name in ("dps zeta=", "unconditional", "tweedie t="):
        assert table.count(name) == 2
    rows = list(csv.DictReader((sweep / "table.csv").open()))
    assert len(rows) == 6
    for row in rows:
        assert float(row["w2"]) > float(row["w2_exact"]) > 0.0
    assert (sweep / "table.md").read_text().count("\n") == 2 + 2 + 6
    assert {path.name for path in (sweep / "plots").iterdir()} == {
        *("overview.png", "box-maps.png", "box-ranks.png", "two_modes-samples.png", "two_modes-ranks.png")
    }
    page = (sweep / "report.html").read_text()
    assert page.count('<svg class="plot"') == 5
    assert not re.search(r"(src|href)=\"(https?:)?//", page)
    floors = {json.loads(path.read_text())["floor"]["w2"] for path in sweep.glob("*exact_problem=box*/exact_posterior.json")}
    assert len(floors) == 1
    kept = np.load(next(sweep.glob("*exact_problem=box*solver=dps*")) / "clouds.npz")
    assert kept["solved_std"].shape == (24 * 24,)


@pytest.mark.script
def test_tuning_is_a_sweep_on_problems_of_another_seed(tmp_path):
    printed = evaluate(
        tmp_path,
        "-m",
        "experiment=tune_exact_posterior",
        "exact_problem=random_2",
        "solver=dps",
        "solver.zeta=0.1,0.5",
        "grid.steps=3",
        "output_dir=t",
    ).stdout
    assert "dps zeta=0.1" in printed
    assert "dps zeta=0.5" in printed
    settings = [json.loads(path.read_text())["settings"] for path in (tmp_path / "t").glob("*/exact_posterior.json")]
    assert [(one["seed"], one["operator"]["seed"], one["exact_problem"]["measurements"]) for one in settings] == [(1, 1, 0)] * 2


@pytest.mark.script
def test_the_sweep_runs_every_solver_of_conf(tmp_path):
    """experiment=exact_posterior on one problem, with four steps. A file in conf/solver is enough to add a solver."""
    printed = evaluate(tmp_path, "-m", "experiment=exact_posterior", "exact_problem=random_2", "grid.steps=4", "output_dir=sweep").stdout
    found = {json.loads(path.read_text())["solver"] for path in (tmp_path / "sweep").glob("*/exact_posterior.json")}
    assert found == {path.stem for path in (ROOT / "conf" / "solver").glob("*.yaml")}
    assert printed.rstrip().endswith("report.html")
    swept = yaml.safe_load((ROOT / "conf" / "experiment" / "exact_posterior.yaml").read_text())["hydra"]["sweeper"]["params"]
    assert swept == {"exact_problem": "glob(*)", "solver": "glob(*)"}


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


@pytest.mark.script
@pytest.mark.parametrize(("overrides", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_settings_that_cannot_work_are_refused_in_one_line(overrides, message, tmp_path):
    done = evaluate(tmp_path, "exact_problem=box", *overrides, "output_dir=run", code=2)
    assert done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.script
def test_a_prior_without_weights_cannot_be_trained(tmp_path):
    done = Run(tmp_path, "prior=gaussian", f"data.root={ROOT / 'examples' / 'faces'}", "output_dir=run", script="train.py").wait()
    assert done.returncode == 2, done.stderr
    assert "without weights to train" in done.stderr


def quick(command: str) -> list[str]:
    """The arguments of a command, with the first value of each list, and two steps."""
    words = [re.sub(r"(=[^,]*),.*", r"\1", word) for word in command.split()[1:] if not word.startswith("grid.steps=")]
    if words[0] == "sample.py":
        return [*words, "grid.steps=2", "metrics.lpips=null", "trainer.accelerator=cpu"]
    only = [] if any(word.startswith("exact_problem=") for word in words) else ["hydra.sweeper.params.exact_problem=two_modes"]
    if "experiment=exact_posterior" in words and not any(word.startswith("solver=") for word in words):
        only.append("hydra.sweeper.params.solver='dps,sdedit'")  # another test runs every solver
    return [*words, "grid.steps=2", *only]


@pytest.mark.slow
def test_every_command_of_the_page_runs(tmp_path):
    documented = commands("docs/exact_posterior.md")
    assert len(documented) >= 15
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for command in documented:
        script, *overrides = quick(command)
        done = Run(tmp_path, *overrides, script=script).wait()
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert done.stdout.strip(), command


def test_the_page_shows_the_tuned_settings():
    """The settings in docs/exact_posterior_table.md are those of conf/tuned."""
    shown, problem = {}, ""
    for line in (ROOT / "docs" / "exact_posterior_table.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) > 2:
            problem = cells[0] or problem
            solver, *settings = cells[1].split()
            shown[problem, solver] = dict(setting.split("=") for setting in settings if "=" in setting)
    assert {solver for _, solver in shown} >= {path.stem for path in (ROOT / "conf" / "solver").glob("*.yaml")}
    for path in TUNED.glob("*.yaml"):
        for problem, settings in yaml.safe_load(path.read_text()).items():
            wanted = {key.rsplit(".", 1)[-1]: str(value) for key, value in settings.items()}
            assert shown[problem, path.stem] == wanted, (problem, path.stem)
