"""Names of output folders: the same command finds its own run again, and another command gets another folder."""

from __future__ import annotations

import random
import re

import pytest

from diffusion_priors.conf.folders import LONGEST, ROOT, job_folder, name_sweep, sweep_folder

LINE = ["solver=sdedit", "solver.t_star=250", "+prior.network.width=8", "data.root=/a/b/faces", "~callbacks"]
FREE = [
    *("output_dir=x", "overwrite=true", "trainer=gpu", "trainer.devices=4", "logger=wandb", "logger.project=p", "batch_size=3"),
    *("+callbacks.mine._target_=a.B", "objective=lpips", "hydra/launcher=slurm", "hydra.launcher.n_jobs=2"),
    *("data.workers=4", "data.freeze=there", "metrics.lpips.trunk=t.pth", "metrics.lpips.download=false"),
]


def test_the_order_of_the_overrides_does_not_matter():
    shuffled = random.Random(0).sample(LINE, len(LINE))
    assert shuffled != LINE and job_folder(shuffled) == job_folder(LINE)


@pytest.mark.parametrize("override", FREE)
def test_what_changes_no_result_changes_no_name(override):
    assert job_folder([*LINE, override]) == job_folder(LINE)
    assert job_folder([override]) == "default"


OTHERS = [
    *("seed=1", "num_samples=2", "data.limit=3", "trainer.precision=bf16", "metrics=lpips_all", "metrics.lpips=null"),
    *("batch_sizes=3", "data.root=/a/c/faces", "data.root='/a/b/my faces'", "data.root=/a/b/my_faces", "solver.t_star=2.5e2"),
]


def test_what_changes_results_changes_the_name():
    found = {job_folder(LINE), *(job_folder([*LINE, override]) for override in OTHERS)}
    assert len(found) == len(OTHERS) + 1


def test_any_override_becomes_a_valid_folder_name():
    """Without slashes and characters that a shell interprets, not hidden, and not longer than file systems allow."""
    strange = ["data.root=/näh/日本 $(x)/*?;`|", "operator.path='a\"b/c d.png'", "+x=${oc.env:HOME}", "prior.size=[64,48]"]
    long = [f"prior.network.channels_{i}={'日' * 30}" for i in range(9)]
    for overrides in (strange, long, [*strange, *long], [f"data.root={'日' * 110}"]):
        name = job_folder(overrides)
        assert re.fullmatch(r"[\w.+\-,=\[\]~]+", name) and not name.startswith(".")
        assert len(name.encode()) <= LONGEST < 256
    assert job_folder(long) != job_folder([*long[:-1], f"{long[-1]}x"])


def test_a_name_shows_the_overrides():
    assert job_folder(["solver=sdedit", "data.root=faces", "solver.t_star=250"]) == "data.root=faces,solver.t_star=250,solver=sdedit"
    assert re.fullmatch(r"data\.root=faces~[0-9a-f]{4}", job_folder(["data.root=/a/b/faces/"]))


def test_a_sweep_is_named_after_the_overrides_that_its_jobs_share():
    swept = {"solver.t_star": "250,500", "row": "a,b"}
    jobs = [["data.root=faces", f"solver.t_star={t}", f"+row={row}"] for t in (250, 500) for row in "ab"]
    assert {sweep_folder(None, job, swept) for job in jobs} == {f"{ROOT}/data.root=faces"}
    assert sweep_folder(None, jobs[0], None) == f"{ROOT}/{job_folder(jobs[0])}"
    assert sweep_folder("mine", jobs[0], swept) == "mine"


SWEEPS = [
    ["-m", "solver=dps,sdedit", "seed=0"],
    ["solver=dps,sdedit", "seed=0", "-m"],
    ["solver=dps,sdedit", "seed=0", "--multirun"],
    ["--config-name", "other", "-m", "solver=dps,sdedit", "seed=0"],
    ["solver=dps,sdedit", "seed=0", "-m", "--config-dir=there"],
]


@pytest.mark.parametrize("arguments", SWEEPS)
def test_a_sweep_on_the_command_line_gets_a_folder_among_its_overrides(arguments):
    """Hydra takes overrides in one piece only."""
    given = ["evaluate.py", *arguments]
    line = name_sweep(given)
    wanted = f"output_dir='{ROOT}/{job_folder(['seed=0', 'solver=dps,sdedit'])}'"
    assert line.index(wanted) == line.index("seed=0") + 1
    assert [one for one in line if one != wanted] == given == ["evaluate.py", *arguments]


@pytest.mark.parametrize("arguments", [["seed=0"], ["-m", "seed=0,1", "output_dir=mine"], ["--help"]])
def test_other_commands_are_unchanged(arguments):
    line = ["evaluate.py", *arguments]
    assert name_sweep(line) == line
