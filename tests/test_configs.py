"""The configuration: every yaml against the constructor it is for, and every option composed as Hydra does it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

import pytest
import yaml

from diffusion_priors.conf import PROJECT
from diffusion_priors.conf.groups import options
from diffusion_priors.conf.settings import EvaluateSettings, SampleSettings, TrainSettings

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONF = PROJECT / "conf"
FILES = sorted(path.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml"))
MAINS = [file for file in FILES if "/" not in file]
FOLDERS = [folder for folder in sorted(CONF.iterdir()) if folder.is_dir() and folder.name != "tuned"]  # tuned holds values, not options
GROUPS = {folder.name: options(folder.name) for folder in FOLDERS}

PRESETS = {
    ("metrics/lpips_all.yaml", "lpips_vgg.net"),
    ("metrics/lpips_all.yaml", "lpips_squeeze.net"),
    # Prior has no weights by default; those of your own network are asked for.
    ("prior/custom.yaml", "checkpoint"),
    ("prior/custom.yaml", "checkpoint.obtain"),
    *(("network/unet64.yaml", key) for key in ("image_size", "num_channels", "channel_mult", "attention_resolutions")),
    *(("network/unet64.yaml", key) for key in ("num_head_channels", "learn_sigma", "min_group_channels")),
    ("trainer/cpu.yaml", "accelerator"),
    ("trainer/ddp.yaml", "strategy"),
    # What a table of the paper shows.
    ("experiment/table1_denoising.yaml", "table.heading"),
    ("experiment/table2_inpainting.yaml", "table.measurement"),
    ("experiment/table3_deconvolution.yaml", "table.measurement"),
    ("experiment/figure2_unconditional.yaml", "table.columns"),
    *(("experiment/" + name, "table.caption") for name in ("table1_denoising.yaml", "table2_inpainting.yaml", "table3_deconvolution.yaml")),
    ("experiment/figure2_unconditional.yaml", "table.caption"),
    *(("trainer/gpu.yaml", key) for key in ("accelerator", "precision", "compile")),
    *(("trainer/fast.yaml", key) for key in ("precision", "compile")),
}
"""(file, key) where a yaml departs from the constructor's default, on purpose."""


@pytest.fixture(scope="module", autouse=True)
def configuration():
    import hydra

    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@cache
def compose(main: str, *overrides: str) -> DictConfig:
    import hydra

    return hydra.compose(main, overrides=list(overrides))


@cache
def read(file: str) -> dict:
    return yaml.safe_load((CONF / file).read_text()) or {}


def built(node: object, path: str = "") -> Iterator[tuple[str, dict]]:
    """(its dotted path, node) for every node with a `_target_`, nested ones included."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from built(value, f"{path}.{key}" if path else str(key))


def packages(defaults: list) -> set[str]:
    """The keys that a defaults list fills: `annealing` for `/annealing@annealing: likelihood`, `operators` for `/…@operators.first: …`."""
    filled = (str(next(iter(entry))) for entry in defaults if isinstance(entry, dict))
    return {name.rsplit("@", 1)[-1].rsplit("/", 1)[-1].split(".")[0] for name in filled if not name.startswith("override ")}


def arguments(target: str) -> dict[str, inspect.Parameter]:
    """The named arguments of a class or function. What nn.Module takes as *args and **kwargs, it only refuses."""
    gathering = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: p for name, p in signature(target).items() if p.kind not in gathering}


@cache
def signature(target: str) -> dict[str, inspect.Parameter]:
    from hydra.utils import get_object

    return dict(inspect.signature(get_object(target)).parameters)


def left_open(value: object) -> bool:
    """Mandatory, an interpolation, or a node built on its own: no default of a signature to compare with."""
    return (isinstance(value, str) and (value == "???" or "${" in value)) or isinstance(value, dict)


def plain(value: object) -> object:
    """Lists and tuples as one; 1 and 1.0 stay different from True."""
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


BUILT = [(file, path, node) for file in FILES if "/" in file for path, node in built(read(file)) if node["_target_"] != "???"]


@pytest.mark.parametrize(("file", "path", "node"), BUILT, ids=[f"{file}:{path}" if path else file for file, path, _ in BUILT])
def test_a_yaml_shows_every_argument_of_its_constructor_and_its_default(file, path, node):
    parameters = arguments(node["_target_"])
    shown = {key: value for key, value in node.items() if not key.startswith("_") and key != "defaults"}
    keys = set(shown) | (packages(node.get("defaults", [])))
    assert keys == set(parameters)
    for key, value in shown.items():
        dotted = f"{path}.{key}" if path else key
        default = parameters[key].default
        if default is inspect.Parameter.empty or left_open(value) or (file, dotted) in PRESETS:
            continue
        assert plain(value) == plain(default), f"{dotted} is {value} here and {default} in the signature"
        assert isinstance(value, bool) == isinstance(default, bool)
        assert isinstance(value, float) == isinstance(default, float), f"{dotted}: {value!r} is not of the kind of {default!r}"


@pytest.mark.parametrize("target", sorted({node["_target_"] for _, _, node in BUILT}))
def test_no_constructor_gathers_keys_it_does_not_know(target):
    """With *args or **kwargs a misspelt key could not be told from a right one before the class is built."""
    assert set(arguments(target)) == set(signature(target))


def test_every_preset_is_still_one():
    """No exception outlives its reason: each listed key departs from the signature's default."""
    for file, dotted in PRESETS:
        *above, key = dotted.split(".")
        node = read(file)
        for name in above:
            node = node[name]
        default = arguments(node["_target_"])[key].default
        assert plain(node[key]) != plain(default), (file, dotted)


@pytest.mark.parametrize("group", GROUPS)
def test_every_yaml_of_a_group_builds_something(group):
    """Its own `_target_`, or another option's of the same group it starts from."""
    for option in GROUPS[group]:
        if group in ("experiment", "callbacks", "row", "exact_problem"):
            continue
        file = read(f"{group}/{option}.yaml")
        node = file.get(group, file)  # a file at the top of the configuration names its group itself
        assert "_target_" in node or any(entry in GROUPS[group] for entry in file.get("defaults", [])), option


def targets(config: DictConfig) -> Iterator[tuple[str, dict]]:
    """The nodes of a composed configuration, mandatory values as ???, interpolations as they are written."""
    from omegaconf import OmegaConf

    return built(OmegaConf.to_container(config, resolve=False))


def assert_fits(config: DictConfig) -> None:
    """Every composed node names a class that can be imported, with no argument unknown and none lacking."""
    for path, node in targets(config):
        if node["_target_"] == "???":
            continue
        parameters = arguments(node["_target_"])
        assert set(node) - {"_target_"} == set(parameters), path


INSIDE = {
    "annealing": ("sample", "solver=score_ald", "annealing@solver.annealing"),
    "inner": ("sample", "solver=daps", "inner@solver.inner"),
    "kspace_mask": ("sample", "operator=mri", "kspace_mask@operator.mask"),
    "coil_maps": ("sample", "operator=mri_multicoil", "coil_maps@operator.maps"),
    "schedule": ("sample", "prior=custom", "schedule@prior.schedule"),
    "covariance": ("sample", "prior=gaussian", "covariance@prior.covariance"),
    "means": ("sample", "prior=gmm", "means@prior.means"),
    "preconditioning": ("sample", "prior=custom", "preconditioning@prior.preconditioning"),
}
"""Groups that sit inside another group's option: the main, that option, and the key they are chosen by."""

OPTIONS = [(group, option) for group, names in GROUPS.items() for option in names]


def choose(group: str, option: str) -> tuple[str, list[str]]:
    """The main and the overrides that choose an option: sample, or the first main that has the group.

    An experiment belongs to a main that has every group it overrides and every key it sets.
    """
    if group in INSIDE:
        main, outer, key = INSIDE[group]
        return main, [outer, f"{key}={option}"]
    wanted = {group} | (asked(f"{group}/{option}.yaml") if group == "experiment" else set())
    having = [file.removesuffix(".yaml") for file in MAINS if wanted <= offered(file)]
    return "sample" if "sample" in having else having[0], [f"{group}={option}"]


def asked(file: str) -> set[str]:
    """The groups of the project that an experiment overrides, and the keys it sets."""
    groups = {name.removeprefix("override /") for name in overridden(file) if "@" not in name}  # not those inside another option
    return {name for name in groups | set(read(file)) if not name.startswith("hydra") and name != "defaults"}


def offered(main: str) -> set[str]:
    return {name for entry in read(main)["defaults"] for name in entry} | set(read(main))


def overridden(file: str) -> list[str]:
    """The keys `override /group` in the defaults list of a file."""
    return [name for entry in read(file).get("defaults", []) if isinstance(entry, dict) for name in entry if name.startswith("override /")]


@pytest.mark.slow
@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda part: part)
def test_every_option_of_every_group_composes(group, option):
    main, overrides = choose(group, option)
    config = compose(main, *overrides)
    assert_fits(config)
    chosen = {node["_target_"] for _, node in targets(config)}
    own = read(f"{group}/{option}.yaml").get("_target_")
    assert own is None or own in chosen


@pytest.mark.parametrize("main", MAINS)
def test_the_defaults_of_a_main_exist_and_compose(main):
    for entry in read(main)["defaults"]:
        if isinstance(entry, dict):
            ((group, option),) = entry.items()
            if option is not None and not group.startswith("override "):
                assert (CONF / group.split("@")[0] / f"{option}.yaml").is_file(), entry
    assert_fits(compose(main.removesuffix(".yaml")))


@pytest.mark.parametrize(("main", "settings"), [("sample", SampleSettings), ("evaluate", EvaluateSettings), ("train", TrainSettings)])
def test_settings_at_the_top_of_a_main_are_the_defaults_of_its_dataclass(main, settings):
    """The yaml shows every setting, and no key but groups and settings."""
    shown = {key: value for key, value in read(f"{main}.yaml").items() if key not in GROUPS and key not in ("defaults", "hydra")}
    parameters = inspect.signature(settings).parameters
    assert set(shown) == set(parameters)
    for key, value in shown.items():
        default = parameters[key].default
        assert default is inspect.Parameter.empty or (value == default and type(value) is type(default)), key


def test_sample_walks_fewer_steps_than_the_grids_own_default_on_every_grid():
    """The one value that sample.yaml sets over a group's: it holds whichever grid is chosen, and the command line wins."""
    for grid in GROUPS["grid"]:
        assert compose("sample", f"grid={grid}").grid.steps == read("sample.yaml")["grid"]["steps"]
        assert compose("sample", f"grid={grid}", "grid.steps=17").grid.steps == 17


def test_a_prior_with_learned_variance_brings_its_sampler_and_the_command_line_still_wins():
    assert compose("sample", "prior=ffhq256").sampler._target_ == "diffusion_priors.diffusion.transitions.LearnedRange"
    assert compose("sample", "prior=ffhq256", "sampler=ddim").sampler._target_ == "diffusion_priors.diffusion.transitions.DDIM"
    assert compose("sample").sampler._target_ == "diffusion_priors.diffusion.transitions.FixedSmall"


@pytest.mark.parametrize(
    "override",
    [
        "solver.nonsense=1",
        "operator.nonsense=1",
        "prior.nonsense=1",
        "noise_model.sigma_y=0.1",
        "nonsense=1",
        "solver=nonsense",
        "nonsense=dps",
        "solver.annealing.scale=1.0",  # dps has none
    ],
)
def test_unknown_keys_and_options_are_refused(override):
    from hydra.errors import HydraException

    with pytest.raises(HydraException):
        compose("sample", override)


def test_no_key_is_given_twice_in_a_file():
    """YAML lets the last one win, silently."""

    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader, node):
        keys = [loader.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), (node.start_mark, keys)
        return loader.construct_mapping(node, deep=True)

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    for file in FILES:
        yaml.load((CONF / file).read_text(), Strict)


CHOOSES = sorted(path.stem for path in (CONF / "solver").glob("*.yaml") if "override /sampler" in path.read_text())


@pytest.mark.parametrize("solver", CHOOSES)
def test_a_solver_with_a_sampler_of_its_own_takes_any_other(solver):
    """Its settings for its own sampler must not be left in the other."""
    assert compose("sample", f"solver={solver}", "sampler=heun").sampler == compose("sample", "sampler=heun").sampler
