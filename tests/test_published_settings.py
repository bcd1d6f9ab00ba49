"""conf/experiment/ffhq256: each experiment builds a method that fits together, names its source and stands in the table of docs/."""

from __future__ import annotations

import re
import shlex

import pytest
import yaml
from documentation import ROOT, commands

FOLDER = ROOT / "conf" / "experiment" / "ffhq256"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
PAGE = "docs/published_settings.md"


@pytest.fixture(scope="module", autouse=True)
def configuration():
    import hydra

    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield


@pytest.mark.parametrize("name", NAMES)
def test_solver_sampler_grid_operator_and_noise_fit_together(name):
    """All but the weights, which have to be downloaded. The walk has as many steps as the experiment says, of the published schedule."""
    import hydra
    from hydra.utils import instantiate

    from diffusion_priors.diffusion.schedules import Linear

    config = hydra.compose("sample", overrides=[f"experiment=ffhq256/{name}"])
    parts = ("operator", "noise_model", "solver", "grid", "sampler")
    operator, noise_model, solver, grid, sampler = (instantiate(config[part], _convert_="all") for part in parts)
    solver.check(operator, noise_model, sampler)
    assert config.prior.checkpoint.name == "ffhq_10m.pt"
    plan = solver.plan(grid, Linear())
    levels = {step.now for step in plan} | {level for step in plan for level in step.inner}
    assert len(plan) >= 20 and config.grid.steps * 0.6 <= len(levels)
    own = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    assert own["grid"]["steps"] == grid.steps
    assert own.get("noise_model", {}).get("sigma", 0.0) == getattr(noise_model, "std", 0.0)
    for key, value in {**own.get("solver", {}), **own.get("sampler", {})}.items():
        assert isinstance(value, dict) or getattr(solver, key, getattr(sampler, key, None)) == value, key


@pytest.mark.parametrize("name", NAMES)
def test_it_is_named_after_its_solver_and_names_its_source(name):
    text = (FOLDER / f"{name}.yaml").read_text()
    (solver,) = re.findall(r"override /solver: (\w+)", text)
    assert name == solver or name.startswith(f"{solver}_")
    comment = " ".join(line for line in text.splitlines()[1:] if line.startswith("#"))
    assert re.search("official code|its paper|authors", comment)


def test_the_table_of_the_page_has_them_all():
    rows = re.findall(r"^\| (`ffhq256/.*?) \|", (ROOT / PAGE).read_text(encoding="utf-8"), re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`ffhq256/(\w+)`", row)]
    assert sorted(listed) == NAMES


def test_the_commands_of_the_page_compose():
    import hydra

    found = [shlex.split(command) for command in commands(PAGE)]
    assert len(found) >= 2
    for _, script, *overrides in found:
        config = hydra.compose(script.removesuffix(".py"), overrides=overrides)
        assert config.prior.checkpoint.path == "ffhq_10m.pt"
