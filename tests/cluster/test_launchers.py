"""Sweeps without a cluster, the presets of the launchers, and the commands of the documentation."""

from __future__ import annotations

import tomllib

import hydra
import pytest
from evaluations import BLOCKS, ROOT, assert_same_sweep, blocks, documented, finish, launch
from hydra.errors import HydraException
from omegaconf import OmegaConf

pytestmark = pytest.mark.script


def test_every_block_of_the_documentation_is_run_here():
    """A test asks for each by its name in BLOCKS."""
    for block in blocks("cluster.md"):
        assert sum(block.startswith(start) for start in BLOCKS.values()) == 1, block
    tests = "".join(path.read_text() for path in (ROOT / "tests" / "cluster").glob("test_*.py"))
    for name in BLOCKS:
        assert f'documented("{name}")' in tests, name


def test_the_install_command_installs_the_launchers():
    assert documented("install").endswith('".[sweeps]"')
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {name.split(">")[0] for name in extras["sweeps"]} >= {"hydra-joblib-launcher", "hydra-submitit-launcher"}


@pytest.mark.slow
def test_parallel_jobs_on_one_machine_have_the_results_of_one_process(folder, reference):
    """joblib and submitit at once."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    lines = documented("without a cluster").splitlines()
    assert len(lines) == 2
    sweeps = [launch(f"{line} output_dir=sweep{number}", folder) for number, line in enumerate(lines)]
    for number, sweep in enumerate(sweeps):
        assert "PSNR (dB) ↑" in finish(sweep)
        assert_same_sweep(folder / f"sweep{number}", reference)


@pytest.mark.parametrize("preset", ["slurm", "slurm_gpu", "processes"])
def test_a_preset_without_its_launcher_is_refused_in_one_line(folder, preset):
    """A package that hides Hydra's plugins stands for a plugin that is not installed."""
    (folder / "none" / "hydra_plugins").mkdir(parents=True)
    (folder / "none" / "hydra_plugins" / "__init__.py").touch()
    line = f"PYTHONPATH=none:$PYTHONPATH python evaluate.py -m data.root=FOLDER solver=dps,sdedit hydra/launcher={preset}"
    printed = finish(launch(line, folder), code=2)
    assert len(printed.strip().splitlines()) == 1 and "hydra/launcher" in printed and "Traceback" not in printed
    assert not (folder / "outputs").exists()


def preset(name: str, *overrides: str) -> dict:
    """The configuration that Hydra hands to the launcher."""
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = hydra.compose("evaluate", [f"hydra/launcher={name}", *overrides], return_hydra_config=True)
    return OmegaConf.to_container(config.hydra.launcher, resolve=False)


def test_presets_are_the_plugins_with_the_usual_fields():
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    cpu, gpu = preset("slurm"), preset("slurm_gpu")
    assert cpu.keys() == preset("submitit_slurm").keys() == gpu.keys()
    assert cpu["_target_"] == gpu["_target_"] == preset("submitit_slurm")["_target_"]
    assert (cpu["gpus_per_node"], gpu["gpus_per_node"]) == (None, 1)
    assert gpu["setup"] == cpu["setup"] and gpu["max_num_timeout"] == cpu["max_num_timeout"] > 0
    assert cpu["submitit_folder"] == "${hydra.sweep.dir}/.submitit/%j"
    assert preset("slurm", "hydra.launcher.timeout_min=30")["timeout_min"] == 30
    assert preset("processes").keys() == preset("joblib").keys() and preset("processes")["n_jobs"] == 2
    with pytest.raises(HydraException):
        preset("slurm", "hydra.launcher.partitoin=gpu")
