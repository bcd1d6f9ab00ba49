"""The command line as docs/command_line.md and docs/sweeps.md describe it: help, completion, own configurations, agents, secrets."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb_file
import yaml
from documentation import ROOT, commands, fenced
from forks import Run
from hydra._internal.utils import get_args_parser
from PIL import Image
from tiny_evaluation import TINY

from diffusion_priors.conf.command import composed_once
from diffusion_priors.conf.groups import SCRIPTS, groups_inside, groups_of, hint, options
from diffusion_priors.diffusion.schedules import Linear

pytestmark = pytest.mark.script

PAGE = "docs/command_line.md"
SHORT = ["grid.steps=2", "metrics.lpips=null", "trainer.accelerator=cpu"]
NETWORK = """
import torch


class Network(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.zeros(width))

    def forward(self, x, t):
        return self.gain.mean() * x
"""


def ran(folder: Path, *arguments: str, script: str = "sample.py", code: int = 0, **environment: str) -> subprocess.CompletedProcess:
    done = Run(folder, *arguments, script=script, environment={"HOME": str(folder), "WANDB_SILENT": "true"} | environment).wait(300)
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done


# Help and completion


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_lists_the_groups_of_the_script_and_no_others(script, tmp_path):
    """Each line `group: options` is composed below by test_configs; here: which lines there are."""
    shown = ran(tmp_path, "--help", script=f"{script}.py").stdout.split("Change any value")[0]
    lines = [line.split(": ")[0] for line in shown.splitlines() if ": " in line and not line.startswith((" ", f"{script}.py"))]
    entries = yaml.safe_load((ROOT / "conf" / f"{script}.yaml").read_text())["defaults"]
    defaults = [name for entry in entries if isinstance(entry, dict) for name in entry]
    assert [line for line in lines if "@" not in line] == [name for name in defaults if not name.startswith("override ")]
    assert [line for line in lines if "@" in line] == [*groups_inside(script)]
    assert "$" not in shown


def test_help_is_that_of_hydra(tmp_path):
    """Printed from the yaml, without Hydra's list of all groups. Another configuration than the script's own is Hydra's to print."""
    given = ("--help", "solver=ddrm", "grid.steps=7")
    assert ran(tmp_path, *given).stdout == ran(tmp_path, *given, "--config-name", "sample").stdout
    for name in ("solver=nothing", "experiment=ffhq256/nothing"):
        assert f"error: {name} is unknown; choose one of" in ran(tmp_path, "--help", name, code=2).stderr


def test_an_option_of_your_own_in_a_folder_is_no_name_on_the_hub(tmp_path):
    (tmp_path / "mine" / "prior" / "team").mkdir(parents=True)
    shutil.copy(ROOT / "conf" / "prior" / "faces64.yaml", tmp_path / "mine" / "prior" / "team" / "own.yaml")
    assert "weights/faces64" in ran(tmp_path, "-cd", "mine", "prior=team/own", "--cfg", "job").stdout


def test_modules_are_imported_without_garbage_collection_and_jobs_run_with_it(tmp_path):
    """The objects of modules are left out of all later collections; what a job of a sweep leaves is not."""
    lines = [
        "import gc",
        "from diffusion_priors.conf.command import importing",
        "with importing():",
        "    inside = gc.isenabled()",
        "    modules = [[] for _ in range(1000)]",
        "frozen = gc.get_freeze_count()",
        "assert not inside and gc.isenabled() and frozen >= 1000, frozen",
        "job = [[] for _ in range(1000)]",
        "with importing():",
        "    assert gc.isenabled()",
        "assert gc.get_freeze_count() == frozen",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "asks"),
    [
        (["solver=ddrm", "seed=1"], False),
        (["-m", "seed=1,2"], False),
        (["+callbacks.mine=1", "~logger"], False),
        (["experiment=table1_denoising"], True),
        (["+experiment=mine"], True),
        (["seed=1,2", "hydra.mode=MULTIRUN"], True),
        (["hydra.searchpath=[mine]"], True),
        (["--config-dir", "mine", "solver=own"], True),
        (["--config-name", "mine"], True),
    ],
)
def test_hydra_is_asked_for_its_mode_only_where_something_may_set_it(arguments, asks):
    """It composes the whole configuration for the answer."""
    from hydra._internal.hydra import Hydra

    get_mode = Hydra.get_mode
    with composed_once(get_args_parser().parse_args(arguments)):
        assert (Hydra.get_mode is get_mode) == asks
    assert Hydra.get_mode is get_mode


def test_a_mode_on_the_command_line_makes_a_sweep(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "grey.png")
    ran(tmp_path, *TINY, "input=grey.png", "output_dir=out", "seed=0,1", "hydra.mode=MULTIRUN")
    assert {path.parent.name for path in tmp_path.glob("out/*/records.jsonl")} == {"0", "1"}


def test_experiments_and_data_are_listed_for_the_scripts_that_take_them():
    assert "tune_dps" in groups_of("evaluate")["experiment"] and "tune_dps" not in groups_of("sample")["experiment"]
    assert groups_of("train")["experiment"] == ["train_faces64"]
    assert (groups_of("evaluate")["data"], groups_of("train")["data"]) == (["images"], ["folder"])
    listed = {option for script in SCRIPTS for option in groups_of(script)["experiment"]}
    assert listed == {*options("experiment")}


def test_every_group_of_another_script_has_a_hint():
    groups = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir() and list(path.glob("*.yaml"))} - {"tuned", "hydra"}
    for script in SCRIPTS:
        for group in groups:
            assert (hint(script, group) is None) == (group in groups_of(script)), (script, group)
    assert hint("sample", "nonsense") is None


def test_completion_offers_the_options_that_fit():
    """The documented line, in bash, then what TAB would ask for."""
    (line,) = fenced(PAGE, "bash")
    python = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HYDRA")} | {"PATH": python}
    press = "hydra_bash_completion; echo ${COMPREPLY[@]}"
    check = 'complete -p python; COMP_LINE="python sample.py solver=s"; COMP_POINT=25; COMP_CWORD=2; ' + press
    done = subprocess.run(
        ["bash", "-c", f"{line}\n{check}"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert "-F hydra_bash_completion python" in done.stdout, done.stderr
    solvers = sorted(path.stem for path in (ROOT / "conf" / "solver").glob("s*.yaml"))
    assert done.stdout.splitlines()[-1].split() == [f"solver={name}" for name in solvers] and "sdedit" in solvers


# Own configurations and networks


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the commands of the page take for granted."""
    for block in fenced(PAGE, "yaml"):
        path = tmp_path / block.split("\n")[0].removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block)
    (tmp_path / "net.py").write_text(NETWORK)
    torch.save(
        {"model": {"gain": torch.ones(8)}, "ema": {"gain": torch.ones(8) / 2, "loss.weight": torch.ones(1)}}, tmp_path / "weights.pt"
    )
    np.save(tmp_path / "betas.npy", np.array(Linear(50).betas))
    return tmp_path


def test_every_command_of_the_page_runs(folder):
    written = dict(zip(("gentle", "mine", "other", "edm", "flow"), (shlex.split(command)[2:] for command in commands(PAGE)), strict=True))
    for name, arguments in written.items():
        ran(folder, *arguments, f"output_dir=outputs/{name}", *SHORT)
    kept = {name: yaml.safe_load((folder / "outputs" / name / "config.yaml").read_text())["config"] for name in written}
    assert kept["gentle"]["solver"] == {"_target_": "diffusion_priors.solvers.dps.DPS", "zeta": 0.3}
    assert kept["mine"]["solver"] == {"_target_": "diffusion_priors.solvers.sdedit.SDEdit", "t_star": 300}
    assert kept["other"]["prior"]["schedule"]["betas"] == "betas.npy"
    assert [kept[name]["prior"]["preconditioning"]["_target_"].split(".")[-1] for name in ("edm", "flow")] == ["EDM", "Flow"]


def test_a_class_in_the_current_folder_hides_none_that_is_installed(folder):
    """torch.py here would be another torch: only a name that is found nowhere else is looked for here."""
    (folder / "decimal.py").write_text("raise SystemExit('the file of the current folder was run')")
    own = ["prior=custom", "prior.checkpoint=null", "+prior.network.width=8"]
    done = ran(folder, *own, "prior.network._target_=decimal.Decimal", *SHORT, code=2)
    assert "current folder was run" not in done.stderr
    ran(folder, *own, "prior.network._target_=net.Network", *SHORT, "output_dir=out")


# Agents of Weights & Biases


def agent_command(sweep: dict, values: dict) -> list[str]:
    """What an agent runs for a trial: wandb's own arguments in the place of its macros."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    made = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    macros = {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [sweep["program"]]} | made
    words = [
        macros.get(word.removeprefix("${").removesuffix("}"), [word]) if word.startswith("${") else [word]
        for word in create_sweep_command(sweep["command"])
    ]
    return [word for part in words for word in part]


def test_an_agent_s_command_logs_the_metric_that_the_sweep_names(tmp_path):
    (tmp_path / "FOLDER").mkdir()
    for i in range(9):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / "FOLDER" / f"{i}.png")
    sweep = next(content for content in map(yaml.safe_load, fenced("docs/sweeps.md", "yaml")) if "program" in content)
    chosen = {"solver": "dps", "solver.zeta": 0.75, "seed": 1}
    assert chosen.keys() == sweep["parameters"].keys()
    env, python, script, *arguments = agent_command(sweep, chosen)
    assert (env, python, script) == ("/usr/bin/env", "python", "evaluate.py")
    assert {"solver=dps", "solver.zeta=0.75", "seed=1"} <= {*arguments}
    ran(tmp_path, *arguments, *TINY, script=script, WANDB_MODE="offline", WANDB_SWEEP_ID="sweep1", WANDB_RUN_ID="trial1")
    (output,) = (tmp_path / "outputs" / "evaluate").iterdir()
    (run,) = output.glob("wandb/offline-run-*-trial1/*.wandb")
    summary = wandb_file.summary(wandb_file.finished(run))
    assert isinstance(summary[sweep["metric"]["name"]], float)


# Secrets


def test_no_secret_of_an_address_is_shown_or_kept(tmp_path):
    """The whole address is used, and a run with it leaves no file and prints no line that holds the secret."""
    cache = tmp_path / "cache"
    cache.mkdir()
    torch.save({"gain": torch.ones(())}, cache / "x.pt")  # found in the cache, so nothing is fetched
    Image.new("RGB", (16, 16), (90, 20, 200)).save(tmp_path / "face.png")
    address = "prior.checkpoint.url='https://user:hunter2@host.test/x.pt?token=hunter2'"
    prior = ["prior=custom", "prior.network._target_=broken_networks.Shrink", "prior.size=[16,16]", "prior.checkpoint.path=null"]
    where = ["prior.checkpoint.name=x.pt", f"prior.checkpoint.cache={cache}", f"prior.checkpoint.sha256={'0' * 64}"]
    evaluation = [*prior, *where, address, "data.root=face.png", "logger=wandb", "logger.mode=offline", *SHORT]
    said = [ran(tmp_path, *evaluation, *more, script="evaluate.py") for more in ([], [], ["seed=0,1", "-m"])]
    said += [
        ran(
            tmp_path,
            *prior,
            *where,
            "prior.checkpoint.url='${oc.env:ADDRESS}'",
            "input=face.png",
            "output_dir=out",
            *SHORT,
            ADDRESS="https://a:hunter2@b/c",
        )
    ]
    assert all("hunter2" not in done.stdout + done.stderr for done in said)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [str(path) for path in files if b"hunter2" in path.read_bytes() or "hunter2" in str(path)] == []
    kept = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert (
        kept["config"]["prior"]["checkpoint"]["url"] == "https://***@b/c"
        and "prior.checkpoint.url='${oc.env:ADDRESS}'" in kept["overrides"]
    )
