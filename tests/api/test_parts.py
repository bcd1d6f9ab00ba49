"""Parts by name: the same configuration as Hydra composes, the same refusals as on the command line, without Hydra."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
import torch
from lazy import Lazy
from omegaconf import DictConfig, OmegaConf

import diffusion_priors as dp
from diffusion_priors.conf import PROJECT
from diffusion_priors.conf.groups import groups_of, options
from diffusion_priors.conf.named import MADE, Choice, composed
from diffusion_priors.diffusion.preconditioning import EDM
from diffusion_priors.diffusion.schedules import VE
from diffusion_priors.operators.custom import CustomLinear
from diffusion_priors.solvers.ddnm import DDNM
from diffusion_priors.solvers.dps import DPS
from diffusion_priors.solvers.inner_chains import HMC

broken_networks = Lazy("broken_networks")
GROUPS = {group: names for group, names in groups_of("sample").items() if group not in ("experiment", "sampler")}


def asks_something_of_hydra(group: str, option: str) -> bool:
    """Whether a yaml is more than a node: with other options inside, a package, or an interpolation."""
    text = (PROJECT / "conf" / group / f"{option}.yaml").read_text(encoding="utf-8")
    return any(word in text for word in ("defaults:", "@package", "${"))


ASKING = {group: [option for option in names if asks_something_of_hydra(group, option)] or names[:1] for group, names in GROUPS.items()}
CHOICES = [{group: names[i % len(names)] for group, names in ASKING.items()} for i in range(max(map(len, ASKING.values())))]
"""One option of each group at a time, until every one that asks something of Hydra has had its turn."""


@pytest.fixture(scope="module")
def hydra():
    import hydra

    with hydra.initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        yield hydra


@pytest.mark.parametrize("choices", CHOICES, ids=lambda choices: choices["solver"])
def test_options_are_composed_as_by_hydra(choices, hydra):
    """Themselves, the parts inside them, and the sampler that the solver or the prior chooses with the settings that they give it."""
    config = hydra.compose("sample", overrides=[f"{group}={option}" for group, option in choices.items()])
    found = {group: composed(group, option) for group, option in choices.items()}
    config.grid.steps = found["grid"].node.steps  # the one value that sample.yaml sets itself
    for group, one in found.items():
        assert one.node == config[group], group
    chosen = found["prior"].chosen | found["solver"].chosen
    assert set(chosen) <= {"sampler"}
    sampler = chosen.get("sampler", Choice("ddpm", {}))
    assert OmegaConf.merge(composed("sampler", sampler.option).node, sampler.settings) == config.sampler


def test_the_defaults_of_restore_are_those_of_sample(hydra):
    from diffusion_priors.api.restore import STEPS

    parameters = {name: one.default for name, one in inspect.signature(dp.restore).parameters.items()}
    choices = {
        group: option
        for entry in OmegaConf.load(PROJECT / "conf" / "sample.yaml").defaults
        if isinstance(entry, dict | DictConfig)
        for group, option in entry.items()
    }
    for group in ("prior", "solver", "noise_model", "grid", "fit", "trainer"):
        assert parameters[group] == choices[group], group
    config = hydra.compose("sample")
    assert config.grid.steps == STEPS
    for key in ("seed", "num_samples", "batch_size", "images_per_call"):
        assert parameters[key] == config[key], key


def test_a_setting_is_a_value_an_option_a_dictionary_or_an_object():
    assert dp.solver("dps", zeta=0.5).zeta == 0.5
    assert dp.solver("daps", inner="hmc").inner.__class__ is HMC
    assert dp.operator("mri", mask={"acceleration": 8}).drawn_mask.acceleration == 8
    network, schedule = broken_networks.Shrink(), VE()
    prior = dp.load_prior("custom", network=network, schedule=schedule, preconditioning=EDM(), checkpoint=None, size=(8, 8))
    assert (prior.network, prior.schedule, prior.size) == (network, schedule, (8, 8))
    assert isinstance(dp.operator("custom_linear", function=lambda x: x.flip(-1)), CustomLinear)


def test_a_text_is_no_interpolation(monkeypatch):
    monkeypatch.setenv("SECRET", "value")
    with pytest.raises(ValueError, match=r"\$\{oc.env:SECRET\}"):
        dp.operator("inpaint_mask", path="${oc.env:SECRET}")


REFUSED = {
    "an option": (lambda: dp.solver("dpss"), "solver='dpss' is unknown; choose one of adam_dps, "),
    "a setting": (lambda: dp.solver("dps", zeat=1.0), "solver.zeat is unknown; DPS takes zeta, per_level, limit"),
    "a kind of value": (lambda: dp.solver("dps", zeta="large"), "solver.zeta='large' is of the wrong kind"),
    "a value": (lambda: dp.solver("dps", zeta=-1.0), "the step size must be finite and not negative, got zeta=-1.0"),
    "a value that is missing": (lambda: dp.operator("inpaint_mask"), "operator.path is not set"),
    "an option inside": (lambda: dp.solver("daps", inner="mcmc"), "inner='mcmc' is unknown; choose one of exact, hmc, langevin"),
    "a setting inside": (lambda: dp.operator("mri", mask={"speed": 8}), "operator.mask.speed is unknown; Equispaced takes "),
    "an object inside": (lambda: dp.solver("daps", inner=torch.ones(2)), "solver.inner is a Tensor, and no diffusion_priors.solvers."),
    "an object for a number": (lambda: dp.solver("dps", zeta=torch.ones(())), "solver.zeta is a Tensor, and no builtins.float"),
    "a prior": (lambda: dp.load_prior("faces65"), "prior='faces65' is neither a name nor a path that exists; choose one of custom, "),
    "a group": (lambda: dp.part("solvers", "dps"), "solvers='dps' is unknown; there is no group solvers"),
    "a group to list": (lambda: dp.options("solvers"), "there is no group 'solvers'; choose one of annealing, "),
}


@pytest.mark.parametrize(("wrong", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(wrong, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared
        wrong()
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_a_part_remembers_what_its_option_chooses_as_long_as_it_lives():
    solver = dp.solver("ddnm")
    assert MADE[solver].chosen["sampler"].option == "ddim_stochastic"
    before = len(MADE)
    del solver
    assert len(MADE) == before - 1
    assert DDNM() not in MADE and DPS() not in MADE


def test_the_public_names_are_those_for_type_checkers():
    import ast

    tree = ast.parse((PROJECT / "diffusion_priors" / "__init__.py").read_text())
    (typed,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    homes = {name.name: node.module for node in typed.body for name in node.names}
    assert homes == {name: f"diffusion_priors.{module}" for name, module in dp._MODULES.items()}
    assert sorted(homes) == sorted(dp.__all__) == sorted(dir(dp))
    assert all(getattr(dp, name) is not None for name in dp.__all__)
    assert options("solver") == dp.options("solver")


@pytest.mark.script
def test_the_import_is_instant_and_a_restoration_loads_no_hydra():
    check = """
import sys
import diffusion_priors as dp
loaded = {name.split(".")[0] for name in sys.modules}
assert not loaded & {"torch", "numpy", "omegaconf", "yaml", "PIL"}, loaded
dp.restore("gaussian", image=dp.FACES[0], operator="identity", solver="tweedie", steps=1, progress=False)
assert "hydra" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", check], cwd=PROJECT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
