"""From a composed configuration to built parts. Every `_target_` of the project is instantiated here."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, get_type_hints

import torch
import yaml
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from diffusion_priors.conf import PROJECT
from diffusion_priors.conf.command import Stop, one_line, refusing
from diffusion_priors.evaluation.exact.experiment import ExactExperiment
from diffusion_priors.evaluation.restoration.external import Scoring
from diffusion_priors.evaluation.restoration.frozen import describe
from diffusion_priors.evaluation.restoration.output import OutputFolder
from diffusion_priors.evaluation.restoration.run import Evaluation
from diffusion_priors.evaluation.restoration.sample_run import Restoration
from diffusion_priors.training.run import Training

RESTORATION = ("operator", "noise_model", "solver", "grid", "transition", "fit", "trainer", "metrics", "prior")
EVALUATION = ("data", "operator", "noise_model", "solver", "grid", "transition", "metrics", "trainer", "callbacks", "logger", "prior")
TRAINING = ("weighting", "optimiser", "lr_schedule", "trainer", "validation", "export", "logger", "data", "prior")
INTERPOLATED = ("network", "schedule", "preconditioning", "transition")
"""Groups of train.yaml that stand in other parts: the new prior's, and the validation's transition."""
EXACT = ("exact_problem", "operator", "noise_model", "solver", "grid", "transition", "prior")
OTHER = ("objective", "table", "samples", "truth", "compare", "use_tuned")
"""Keys of evaluate.yaml that are about a sweep, or other work than restoring."""


def build_restoration(config: DictConfig, output_dir: Path) -> Restoration:
    """The run a composed sample.yaml describes. Raises Stop for values of the wrong kind, before anything is loaded."""
    parts, settings = _checked(config, Restoration, RESTORATION, ())
    check_values({"overwrite": config.overwrite}, OutputFolder, "")
    parts = {part: build(config[part]) for part in parts}
    with refusing():
        return Restoration(
            **parts, **settings, measurement_spec=measurement_spec(config), output=OutputFolder(output_dir, config.overwrite)
        )


def build_evaluation(config: DictConfig, output_dir: Path) -> Evaluation:
    """The run a composed evaluate.yaml describes. Raises Stop for values of the wrong kind, before anything is loaded."""
    parts, settings = _checked(config, Evaluation, EVALUATION, OTHER)
    parts = {part: build(config[part]) for part in parts}
    if config.objective not in parts["metrics"].names:
        raise Stop(f"objective={config.objective} is unknown; choose one of {', '.join(parts['metrics'].names)}")
    with refusing():
        return Evaluation(**parts, **settings, measurement_spec=measurement_spec(config), output=output_dir)


def tune(config: DictConfig, solver: str, overrides: Sequence[str]) -> list[str]:
    """Set the solver's values of conf/tuned/SOLVER.yaml for this problem, except those on the command line; → their keys.

    A solver without that file, or with use_tuned=false, keeps its own defaults.
    """
    path = PROJECT / "conf" / "tuned" / f"{solver}.yaml"
    if not config.use_tuned or not path.is_file():
        return []
    tuned = yaml.safe_load(path.read_text(encoding="utf-8")).get(config.exact_problem.name, {})
    for key, value in tuned.items():
        name = f"solver.{key}"
        if OmegaConf.select(config, name) is not None and not any(override.lstrip("+").startswith(f"{name}=") for override in overrides):
            OmegaConf.update(config, name, value)
    return list(tuned)


def build_exact(config: DictConfig) -> ExactExperiment:
    """The comparison with an exact posterior that exact_problem= asks for. Raises Stop for values of the wrong kind, and for images."""
    for key in ("root", "measurements", "freeze"):
        if config.data[key] is not None:
            raise Stop(f"exact_problem= draws its own images and measures them; leave out data.{key}, or exact_problem=")
    for part in EXACT:
        check_types(config[part], part)
    plain = {key: config[key] for key in ("seed", "batch_size")}
    check_values(plain, ExactExperiment, "")
    parts = {part: build(config[part]) for part in EXACT}
    with refusing():
        return ExactExperiment(**parts, **plain)


def build_scoring(config: DictConfig, output_dir: Path) -> Scoring:
    """The scores that samples= and truth= ask for. Raises Stop for values of the wrong kind and for one without the other."""
    for key, other in (("samples", "truth"), ("truth", "samples")):
        if config[key] is None:
            raise Stop(f"{other}= is given without {key}=; images are scored against others of the same names: add {key}=FOLDER")
    plain = {key: OmegaConf.to_container(config)[key] for key in ("samples", "truth", "overwrite")}
    check_types(config.metrics, "metrics")
    check_values(plain, Scoring, "")
    return Scoring(**plain, metrics=build(config.metrics), output=output_dir)


def two_runs(config: DictConfig) -> tuple[Path, Path]:
    """The folders of compare=[DIR1,DIR2]. Raises Stop for anything else."""
    given = OmegaConf.to_container(config)["compare"]
    if not isinstance(given, list) or len(given) != 2 or not all(isinstance(one, str) for one in given):
        raise Stop(f"compare={given} names no two runs; give two folders, as in compare=[DIR1,DIR2]")
    return Path(given[0]), Path(given[1])


def measurement_spec(config: DictConfig) -> dict[str, Any]:
    return describe(*(OmegaConf.to_container(config[part], resolve=True) for part in ("operator", "noise_model")))


def build_training(config: DictConfig, output_dir: Path) -> Training:
    """The run a composed train.yaml describes. Raises Stop for values of the wrong kind, before anything is loaded."""
    parts, settings = _checked(config, Training, TRAINING, INTERPOLATED)
    torch.manual_seed(settings["seed"])  # a new network's weights are drawn as it is built
    parts = {part: build(config[part]) for part in parts}
    if not any(True for _ in parts["prior"].network.parameters()):
        raise Stop("this prior's network is a formula, without weights to train; choose another prior")
    with refusing():
        return Training(**parts, **settings, output=output_dir)


def _checked(config: DictConfig, run: type, parts: tuple[str, ...], elsewhere: tuple[str, ...]) -> tuple[tuple[str, ...], dict]:
    """The parts of `run`, and its settings as plain values, every value compared with the argument it is for."""
    settings = [name for name in inspect.signature(run).parameters if name not in (*parts, "output", "measurement_spec")]
    known = {*parts, *settings, *elsewhere, "output_dir", "overwrite"}
    for key in config:
        if key not in known:
            raise Stop(f"{key} is unknown; known here: {', '.join(sorted(known))}")
    for part in parts:
        check_types(config[part], part)
    plain = {
        key: OmegaConf.to_container(config[key], resolve=True) if OmegaConf.is_config(config[key]) else config[key] for key in settings
    }
    check_values(plain, run, "")
    return parts, plain


def build(node: DictConfig) -> Any:
    """The object a config node describes. Raises Stop where a constructor refuses its values."""
    try:
        return instantiate(node, _convert_="all")
    except Exception as error:
        cause = error.__cause__ if isinstance(error.__cause__, (ValueError, OSError)) else error
        if isinstance(cause, (ValueError, OSError, ImportError)) or type(error).__module__.startswith("hydra"):
            raise Stop(one_line(cause)) from error
        raise


def check_types(config: DictConfig, name: str = "") -> None:
    """Compare every value with the annotation of the constructor argument it is for, throughout `config`.

    Only classes are imported: no weights, no images. Raises Stop naming the key, the value and what is wanted.
    """
    if "_target_" in config:
        _check_arguments(config, name)
    for key in config:
        if not OmegaConf.is_missing(config, key) and isinstance(config[key], DictConfig):
            check_types(config[key], f"{name}.{key}" if name else str(key))


def check_values(values: dict[str, Any], target: Any, name: str) -> None:
    """Compare `values` with the annotations of `target`'s arguments. Raises Stop at the first that does not fit."""
    prefix = f"{name}." if name else ""
    known = inspect.signature(target).parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    hints = get_type_hints(target if is_dataclass(target) or not inspect.isclass(target) else target.__init__)
    for key, value in values.items():
        if key not in known and not open_ended:
            raise Stop(f"{prefix}{key} is unknown; {target.__name__} takes {', '.join(known)}")
        if key in hints:
            _check_value(f"{prefix}{key}", value, hints[key])


def _check_arguments(config: DictConfig, name: str) -> None:
    if OmegaConf.is_missing(config, "_target_"):
        raise Stop(f"{name}._target_ is not set; set it to a class, as in {name}._target_=package.module.Class")
    try:
        target = resolve_name(config._target_)
    except Exception as error:
        raise Stop(f"{name}._target_={config._target_} cannot be imported: {one_line(error)}") from error
    missing = sorted(str(key) for key in OmegaConf.missing_keys(config))
    if missing:
        raise Stop(f"{missing[0]} is not set; add {missing[0]}=VALUE")
    plain = {
        key: OmegaConf.to_container(value, resolve=True) if isinstance(value, ListConfig) else value
        for key, value in config.items()
        if not isinstance(value, DictConfig) and not str(key).startswith("_")
    }
    check_values(plain, target, name)
    required = [p.name for p in inspect.signature(target).parameters.values() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    absent = [key for key in required if key not in config]
    if absent:
        raise Stop(f"{name}.{absent[0]} is not set; add +{name}.{absent[0]}=VALUE")


def _check_value(key: str, value: Any, hint: Any) -> None:
    """Strict, as JSON is: no number for a text, no text for a number, no 2.5 for a count; lists stand for tuples."""
    try:
        try:
            TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
        except PydanticUserError:  # the annotation is a class of ours, built from a config node
            TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        raise Stop(f"{key}={_shown(value)} is of the wrong kind: {first['msg'][0].lower()}{first['msg'][1:]}") from None


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else json.dumps(value)


def source_state(root: Path) -> dict[str, Any]:
    """Versions and the git commit of the project, for config.yaml."""
    import platform
    import subprocess
    from importlib.metadata import PackageNotFoundError, version

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    packages = ("diffusion-priors", "torch", "torchvision", "pytorch-lightning", "hydra-core", "torchmetrics", "lpips")
    status = git("status", "--porcelain")
    return {
        "python": platform.python_version(),
        "packages": {name: installed(name) for name in packages},
        "git": {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)},
    }
