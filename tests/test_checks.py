"""A configuration against the classes that it is for: whatever the project offers passes, and what is not of its kind does not."""

from __future__ import annotations

import hydra
import pytest
from configured import options
from lazy import Lazy
from omegaconf import OmegaConf

from diffusion_priors.conf import PROJECT
from diffusion_priors.conf.errors import Stop
from diffusion_priors.conf.groups import groups_of
from diffusion_priors.conf.settings import EvaluateSettings, SampleSettings, TrainSettings

build, checks = Lazy("diffusion_priors.conf.build"), Lazy("diffusion_priors.conf.checks")

SETTINGS = {"sample": SampleSettings, "evaluate": EvaluateSettings, "train": TrainSettings}
SET = {  # what a yaml leaves to the user
    "prior/custom": ["prior.network._target_=broken_networks.Shrink", "prior.checkpoint=null"],
    "prior/folder": ["prior.path=x"],
    "prior/training": ["prior.path=x"],
    "prior/ddpm": ["prior.path=x"],
    "prior/diffusers": ["prior.path=x"],
    "prior/edm": ["prior.path=x"],
    "prior/inverse_bench": ["prior.path=x"],
    "prior/lightning": ["prior.path=x"],
    "operator/inpaint_mask": ["operator.path=x"],
    "operator/deblur_kernel": ["operator.path=x"],
    "operator/custom": ["operator.function._target_=own_operators.exposed"],
    "operator/custom_linear": ["operator.function._target_=own_operators.ghosted", "+operator.function.strength=0.2"],
    "operator/deepinv": ["operator.physics._target_=own_operators.Ghosted", "+operator.physics.strength=0.2"],
}


@pytest.fixture(scope="module", autouse=True)
def configuration():
    with hydra.initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        yield


def groups(script: str) -> dict:
    return {"sample": build.SAMPLE, "evaluate": build.EVALUATE, "train": build.TRAIN}[script]


CHOICES = [
    (script, group, option)
    for script in SETTINGS
    for group, names in groups_of(script).items()
    for option in names
    if group not in ("experiment", "row", "exact_problem") and (script, group) != ("train", "prior")
]


@pytest.mark.parametrize(("script", "group", "option"), CHOICES, ids=lambda part: part)
def test_every_option_of_every_script_passes(script, group, option):
    own = SET.get(f"{group}/{option}", [])
    training = ["data.root=x"] if script == "train" else []
    betas = ["schedule.betas=x"] if option == "betas" else []
    config = hydra.compose(script, overrides=[f"{group}={option}", *training, *betas, *own])
    assert checks.settings_of(config, SETTINGS[script]).seed == 0
    checks.check_groups(config, SETTINGS[script], groups(script), build.INSIDE_OTHERS if script == "train" else ())


def test_the_operators_of_a_composition_are_chosen_one_by_one():
    """Another, one more, one less, and their values; each is compared with its own class."""
    place = "operator@operator.operators"
    overrides = [f"{place}.first=deblur_motion", "operator.operators.first.size=7", f"~{place}.third", f"+{place}.last=inpaint_box"]
    config = hydra.compose("sample", overrides=["operator=compose", *overrides])
    checks.check_groups(config, SampleSettings, build.SAMPLE)
    built = build.build(config.operator).operators
    assert [type(one).__name__ for one in built] == ["DeblurMotion", "SuperResolution", "InpaintBox"] and built[0].size == 7
    config = hydra.compose("sample", overrides=["operator=compose", "operator.operators.first.size=large"])
    with pytest.raises(Stop, match=r"operator\.operators\.first\.size='large' is of the wrong kind"):
        checks.check_groups(config, SampleSettings, build.SAMPLE)


EXPERIMENTS = [(script, option) for script in SETTINGS for option in groups_of(script).get("experiment", [])]


@pytest.mark.parametrize(("script", "experiment"), EXPERIMENTS, ids=lambda part: part)
def test_every_experiment_passes(script, experiment):
    own = ["data.root=x"] if script == "train" else ["exact_problem=box"] if experiment == "tune_exact_posterior" else []
    config = hydra.compose(script, overrides=[f"experiment={experiment}", *own])
    checks.settings_of(config, SETTINGS[script])
    exact = "exact_problem" in config
    wanted, others = (build.EXACT, [*build.EVALUATE]) if exact else (groups(script), build.INSIDE_OTHERS if script == "train" else ())
    checks.check_groups(config, SETTINGS[script], wanted, others)
    if script == "evaluate":
        checks.check_part(config.table, build.PaperTable | None, "table")


@pytest.mark.parametrize("row", options("row"))
def test_every_row_passes(row):
    experiment = "table1_denoising" if row.startswith("denoising") else "table2_inpainting"
    config = hydra.compose("evaluate", overrides=[f"experiment={experiment}", f"row={row}"])
    checks.check_groups(config, EvaluateSettings, build.EVALUATE)
    checks.check_part(config.table, build.PaperTable, "table")


@pytest.mark.parametrize("problem", options("exact_problem"))
def test_every_exact_problem_passes(problem):
    config = hydra.compose("evaluate", overrides=[f"exact_problem={problem}"])
    for part, wanted in build.EXACT.items():
        checks.check_part(config[part], wanted, part)


@pytest.mark.parametrize("covariance", options("covariance"))
def test_a_protocol_is_what_has_its_methods(covariance):
    """Covariances share a protocol and no base class."""
    own = ["prior.covariance.path=x"] if covariance == "file" else []
    config = hydra.compose("sample", overrides=["prior=gaussian", f"covariance@prior.covariance={covariance}", *own])
    checks.check_part(config.prior, build.METHOD["prior"], "prior")
    config.prior.covariance = {"_target_": "decimal.Decimal"}
    with pytest.raises(Stop, match=r"prior\.covariance\._target_=decimal\.Decimal is no "):
        checks.check_part(config.prior, build.METHOD["prior"], "prior")


class Part:
    """Takes parts in every way that an annotation can say."""

    def __init__(
        self,
        one: Part | None = None,
        several: list[Part] | None = None,
        named: dict[str, Part] | None = None,
        number: float = 1.0,
        pair: tuple[int, int] = (1, 2),
        either: Part | float = 1.0,
        untyped=None,
    ) -> None: ...


def made(**values: object) -> dict:
    return {"_target_": "test_checks.Part", **values}


GOOD = {
    "nothing": {},
    "one": {"one": made()},
    "several": {"several": [made(), made(number=2)]},
    "named": {"named": {"a": made(), "b": made(one=made())}},
    "either part": {"either": made()},
    "either number": {"either": 2.5},
    "untyped": {"untyped": {"a": [1, {"b": None}]}},
    "null": {"one": None, "several": None, "named": None},
    "a pair": {"pair": [3, 4]},
}
BAD = {
    "a number for a part": ({"one": 3}, r"x\.one=3 is no .*Part"),
    "a part without a class": ({"one": {"a": 1}}, r"x\.one=.* is no .*Part"),
    "another class": ({"one": {"_target_": "decimal.Decimal"}}, r"x\.one\._target_=decimal\.Decimal"),
    "one of several": ({"several": [made(), {"_target_": "pathlib.Path"}]}, r"x\.several\.1\._target_=pathlib\.Path is no .*Part"),
    "a number among several": ({"several": [made(), 3]}, r"x\.several\.1=3 is no .*Part"),
    "one of the named": ({"named": {"a": 3}}, r"x\.named\.a=3 is no .*Part"),
    "deep inside": ({"one": made(one=made(number="a"))}, r"x\.one\.one\.number='a' is of the wrong kind"),
    "neither": ({"either": "a"}, r"x\.either='a' is of the wrong kind"),
    "a text": ({"number": "1"}, r"x\.number='1' is of the wrong kind"),
    "not finite": ({"number": float("nan")}, r"x\.number=NaN is out of bounds"),
    "three of a pair": ({"pair": [1, 2, 3]}, r"x\.pair=\[1, 2, 3\] is out of bounds"),
    "an unknown argument": ({"other": 1}, r"x\.other is unknown; Part takes one, several"),
    "a key of Hydra": ({"_partial_": True}, r"x\._partial_ is unknown"),
}


@pytest.mark.parametrize("case", GOOD)
def test_what_fits_passes(case, monkeypatch):
    monkeypatch.syspath_prepend(str(PROJECT / "tests"))
    checks.check_part(OmegaConf.create(made(**GOOD[case])), Part, "x")


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_named(case, monkeypatch):
    monkeypatch.syspath_prepend(str(PROJECT / "tests"))
    values, message = BAD[case]
    with pytest.raises(Stop, match=message):
        checks.check_part(OmegaConf.create(made(**values)), Part, "x")
