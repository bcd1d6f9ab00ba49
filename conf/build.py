"""From a composed configuration to built parts. Every `_target_` of the project is instantiated here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_type_hints

import torch
import yaml
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from diffusion_priors.conf import PROJECT
from diffusion_priors.conf.checks import check_groups, check_part
from diffusion_priors.conf.command import one_line
from diffusion_priors.conf.errors import NotApplicableStop, Stop, refusing
from diffusion_priors.conf.loaded import last_prior
from diffusion_priors.conf.settings import EvaluateSettings, SampleSettings, TrainSettings
from diffusion_priors.diffusion.samplers import Sampler
from diffusion_priors.diffusion.tiles import Tile
from diffusion_priors.evaluation.exact.experiment import ExactExperiment
from diffusion_priors.evaluation.exact.problem import ExactProblem
from diffusion_priors.evaluation.metrics.per_image import Metrics
from diffusion_priors.evaluation.restoration.external import Scoring
from diffusion_priors.evaluation.restoration.frozen import measurement_spec
from diffusion_priors.evaluation.restoration.images import ImageSet
from diffusion_priors.evaluation.restoration.run import RestorationRun
from diffusion_priors.evaluation.sweeps.paper_table import PaperTable
from diffusion_priors.images.find import find_images
from diffusion_priors.images.fit import Fit
from diffusion_priors.images.io import image_size
from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.noise_models import NoiseModel
from diffusion_priors.runs.trainer import TrainerSettings
from diffusion_priors.solvers.base import NotApplicable, Solver
from diffusion_priors.solvers.method import Method
from diffusion_priors.training.run import Training

METHOD = get_type_hints(Method)
SAMPLE = METHOD | {"tile": Tile, "fit": Fit, "metrics": Metrics, "trainer": TrainerSettings}
EVALUATE = (
    METHOD | {"tile": Tile} | {name: get_type_hints(RestorationRun)[name] for name in ("data", "metrics", "trainer", "callbacks", "logger")}
)
TRAIN = {
    name: get_type_hints(Training)[name]
    for name in ("weighting", "optimiser", "lr_schedule", "trainer", "validation", "export", "logger", "data", "prior")
}
EXACT = {"exact_problem": ExactProblem} | METHOD
"""The config groups that a script builds, with the class of each. The prior is the last of a method's: it may load weights."""
INSIDE_OTHERS = ("network", "schedule", "preconditioning", "sampler")
"""Groups of train.yaml that are parts of other groups: of the new prior, and of the validation."""

MISSING = object()
"""What no key of a configuration holds; null is a value like others."""
BUNDLED_FACES = PROJECT / "examples" / "faces"


def build_sample(config: DictConfig, settings: SampleSettings, output_dir: Path, overrides: Sequence[str] = ()) -> RestorationRun:
    """The run that a composed sample.yaml describes. Raises Stop for values of the wrong kind, before anything is loaded."""
    check_groups(config, SampleSettings, SAMPLE)
    given = {"root": settings.input, "degraded": settings.measurement}
    if None not in given.values():
        raise Stop("input= is a clean image and measurement= a degraded one; give one of them")
    images = settings.input or (None if settings.measurement else str(BUNDLED_FACES / "face-1.png"))
    method = Method(**build_parts(config, overrides, images))
    if not method.solver.uses_measurement and any(value is not None for value in given.values()):
        raise Stop("this solver looks at no image; leave out input= and measurement=, or choose another solver")
    if method.solver.uses_measurement and all(value is None for value in given.values()):
        given["root"] = config.input = images
    with refusing():
        data = ImageSet(build(config.fit), **given)
    return build_run(config, settings, method=method, data=data, output=output_dir, resume=False)


def build_evaluation(config: DictConfig, settings: EvaluateSettings, output_dir: Path, overrides: Sequence[str] = ()) -> RestorationRun:
    """The run that a composed evaluate.yaml describes. Raises Stop for values of the wrong kind, before anything is loaded."""
    check_groups(config, EvaluateSettings, EVALUATE)
    check_part(config.table, PaperTable | None, "table")
    sources = ("root", "degraded", "measurements")
    images = config.data.root or (None if config.data.degraded or config.data.measurements else str(BUNDLED_FACES))
    method = Method(**build_parts(config, overrides, images))
    if method.solver.uses_measurement and all(config.data[source] is None for source in sources):
        config.data.root = images
    parts = {name: build(config[name]) for name in ("data", "callbacks", "logger")}
    return build_run(config, settings, method=method, output=output_dir, repair=settings.repair, **parts)


def build_parts(config: DictConfig, overrides: Sequence[str], images: str | Sequence[str] | None = None) -> dict[str, Any]:
    """The parts of a method, by their group. They are compared with each other before the prior loads its weights.

    Where the network sees tiles and their `image_size` is not set, it is that of the first of the clean `images`.
    """
    parts = {part: build(config[part]) for part in METHOD if part != "prior"}
    check_applicable(parts["solver"], parts["operator"], parts["noise_model"], parts["sampler"], overrides)
    with refusing():
        if config.tile.get("image_size", 0) is None and images is not None and parts["solver"].uses_measurement:
            config.tile.image_size = [*image_size(find_images(images).paths[0])[0]]
        return parts | {"prior": last_prior(config, lambda: build(config.tile)(build(config.prior)))}


def check_applicable(solver: Solver, operator: Operator, noise_model: NoiseModel, sampler: Sampler, overrides: Sequence[str]) -> None:
    """Raises NotApplicableStop where the solver cannot be used with the others, or where a sampler is chosen that it does not use."""
    chosen = [override for override in overrides if override.lstrip("+~").split("=")[0].split(".")[0] == "sampler"]
    try:
        if solver.sampler_type is None and chosen:
            raise NotApplicable(f"{type(solver).__name__} moves by itself and uses no sampler; leave out {chosen[0]}")
        solver.check(operator, noise_model, sampler)
    except NotApplicable as error:
        raise NotApplicableStop(one_line(error)) from error


def build_run(config: DictConfig, settings: SampleSettings | EvaluateSettings, **parts: Any) -> RestorationRun:
    """The run of `parts`, with the metrics and the trainer that the configuration describes."""
    metrics = build(config.metrics)
    if settings.objective not in metrics.names:
        raise Stop(f"objective={settings.objective} is unknown; choose one of {', '.join(metrics.names)}")
    spec = measurement_spec(*(OmegaConf.to_container(config[part], resolve=True) for part in ("operator", "noise_model")))
    shared = {name: getattr(settings, name) for name in ("seed", "num_samples", "batch_size", "images_per_call", "trajectory", "overwrite")}
    with refusing():
        return RestorationRun(metrics=metrics, trainer=build_trainer(config.trainer), measurement_spec=spec, **shared, **parts)


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
        known = OmegaConf.select(config, name, default=MISSING) is not MISSING
        if known and not any(override.lstrip("+").startswith(f"{name}=") for override in overrides):
            OmegaConf.update(config, name, value)
    return list(tuned)


def build_exact(config: DictConfig, settings: EvaluateSettings, overrides: Sequence[str] = ()) -> ExactExperiment:
    """The comparison with an exact posterior that exact_problem= asks for. Raises Stop for values of the wrong kind, and for images."""
    for key in ("root", "degraded", "measurements", "freeze"):
        if config.data[key] is not None:
            raise Stop(f"exact_problem= draws its own images and measures them; leave out data.{key}, or exact_problem=")
    if "image_size" in config.tile:
        raise Stop("exact_problem= has images of the prior's size; leave out tile=, or exact_problem=")
    check_groups(config, EvaluateSettings, EXACT, [*EVALUATE])
    method = Method(**build_parts(config, overrides))
    with refusing():
        return ExactExperiment(method=method, exact_problem=build(config.exact_problem), seed=settings.seed, batch_size=settings.batch_size)


def build_scoring(config: DictConfig, settings: EvaluateSettings, output_dir: Path) -> Scoring:
    """The scores that samples= and truth= ask for. Raises Stop for values of the wrong kind and for one without the other."""
    for key, other in (("samples", "truth"), ("truth", "samples")):
        if config[key] is None:
            raise Stop(f"{other}= is given without {key}=; images are scored against others of the same names: add {key}=FOLDER")
    check_groups(config, EvaluateSettings, {"metrics": Metrics}, [*EVALUATE])
    metrics: Metrics = build(config.metrics)
    shared = {name: getattr(settings, name) for name in ("samples", "truth", "overwrite", "repair")}
    return Scoring(metrics=metrics, output=output_dir, **shared)


def build_training(config: DictConfig, settings: TrainSettings, output_dir: Path) -> Training:
    """The run that a composed train.yaml describes. Raises Stop for values of the wrong kind, before anything is loaded."""
    check_groups(config, TrainSettings, TRAIN, INSIDE_OTHERS)
    torch.manual_seed(settings.seed)  # a new network's weights are drawn as it is built
    parts = {part: build_trainer(config[part]) if part == "trainer" else build(config[part]) for part in TRAIN}
    if not any(True for _ in parts["prior"].network.parameters()):
        raise Stop("this prior's network is a formula, without weights to train; choose another prior")
    with refusing():
        return Training(**parts, **{name: value for name, value in asdict(settings).items() if name != "output_dir"}, output=output_dir)


def build_trainer(node: DictConfig) -> TrainerSettings:
    """The trainer. What it chose takes the place of auto, so that config.yaml says what was computed with."""
    trainer: TrainerSettings = build(node)
    node.update({name: choice.value for name, choice in trainer.chosen.items()})
    return trainer


def build(node: DictConfig) -> Any:
    """The object a config node describes. Raises Stop where a constructor refuses its values."""
    try:
        return instantiate(node, _convert_="all")
    except Exception as error:
        cause = error.__cause__ if isinstance(error.__cause__, (ValueError, OSError)) else error
        if isinstance(cause, (ValueError, OSError, ImportError)) or type(error).__module__.startswith("hydra"):
            raise Stop(one_line(cause)) from error
        raise
