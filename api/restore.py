"""`restore`: a prior and an image or a measurement → samples, in memory."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import closing, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor

from diffusion_priors.api.inputs import Images, Path, clean_items, measured_items
from diffusion_priors.api.parts import load_prior, part
from diffusion_priors.api.result import Result
from diffusion_priors.conf.named import MADE
from diffusion_priors.conf.settings import SampleSettings
from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.grids import Grid
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.samplers import Sampler
from diffusion_priors.evaluation.metrics.per_image import Metrics
from diffusion_priors.evaluation.restoration.batches import Batch, Items, NoImages, Restored, collate
from diffusion_priors.evaluation.restoration.frozen import measurement_spec
from diffusion_priors.evaluation.restoration.groups import batches_of, joined, walks_of
from diffusion_priors.evaluation.restoration.module import RestorationModule
from diffusion_priors.evaluation.restoration.progress import ProgressReport
from diffusion_priors.images.arrays import PixelRange
from diffusion_priors.images.fit import Fit
from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.identity import Identity
from diffusion_priors.operators.noise_models import NoiseModel
from diffusion_priors.runs.trainer import TrainerSettings
from diffusion_priors.runs.values import check_values
from diffusion_priors.solvers.base import Solver
from diffusion_priors.solvers.method import Method
from diffusion_priors.solvers.trajectory import kept_steps

STEPS = 100
"""Of a grid by name, as in sample.yaml."""
Part = TypeVar("Part")


def restore(
    prior: Prior | Path = "faces64",
    *,
    image: Images | None = None,
    measurement: Images | None = None,
    operator: Operator | str | None = None,
    noise_model: NoiseModel | str = "gaussian",
    solver: Solver | str = "dps",
    sampler: Sampler | str | None = None,
    grid: Grid | str = "linspace",
    steps: int | None = None,
    seed: int = 0,
    num_samples: int = 1,
    ids: Sequence[str] | None = None,
    fit: Fit | str = "crop",
    pixel_range: PixelRange | None = None,
    batch_size: int = 8,
    images_per_call: int | None = None,
    metrics: Metrics | str | None = None,
    trainer: TrainerSettings | str = "auto",
    trajectory: bool | int = False,
    progress: bool = True,
) -> Result:
    """Restore images with a diffusion prior, as sample.py does with the keys of the same names.

    `image` is clean: it is degraded by `operator` and `noise_model`, restored, and compared with the restoration.
    `measurement` is a y that exists: an image of it (a path, a PIL image, an array of bytes), or y itself as a tensor or an
    array of floats, in its own unit. A solver that uses no measurement takes neither.

    A part is an object, or the name of an option in conf/ with its defaults. `sampler` None is the one that the solver or the
    prior chooses, else ddpm. `steps` are those of a grid by name. `ids` name the images in memory: a result depends on the
    parts, the seed, the id and the number of the sample alone. `trajectory` keeps the x̂0 of every step, or of that many.
    `metrics` None are PSNR and SSIM; "default" adds LPIPS, whose weights it may download.

    The prior's network is moved to the device of `trainer`, frozen and put into evaluation mode. Raises ValueError or
    FileNotFoundError, in one line, for what cannot be used, before anything is restored.
    """
    _check_numbers(seed, num_samples, batch_size, images_per_call, steps, trajectory)
    found = prior if isinstance(prior, Prior) else load_prior(prior)
    method = _method(found, operator, noise_model, solver, sampler, grid, steps)
    items = _items(method, image, measurement, _one(Fit, "fit", fit), ids, num_samples, pixel_range)
    method.check_compatible()
    items.check(method.operator, method.image_shape, {})
    plan = method.plan()
    settings = _one(TrainerSettings, "trainer", trainer)
    settings.prepare(found.network)
    if progress:
        print(*settings.notices, sep="\n", end="\n" * len(settings.notices), file=sys.stderr)
    batches = batches_of(len(items), batch_size)
    with _report(walks_of(batches, images_per_call), method) if progress else nullcontext() as report:
        module = RestorationModule(
            denoiser=Denoiser(found, settings.autocast),
            solver=method.solver,
            operator=method.operator,
            noise_model=method.noise_model,
            sampler=method.sampler,
            plan=plan,
            metrics=_metrics(metrics, items, found),
            image_shape=method.image_shape,
            seed=seed,
            measurement_key=_measurement_key(method),
            report=report,
            images_per_call=images_per_call,
            frames=trajectory,
        )
        done = _restored(module.to(_device(settings)), items, batches)
    return Result.of(done, items.num_samples, [index + 1 for index in kept_steps(len(plan), trajectory)])


def _check_numbers(
    seed: int, num_samples: int, batch_size: int, images_per_call: int | None, steps: int | None, trajectory: bool | int
) -> None:
    settings = {"num_samples": num_samples, "batch_size": batch_size, "images_per_call": images_per_call}
    check_values({"seed": seed} | settings, SampleSettings)
    for name, value in (settings | {"steps": steps, "trajectory": trajectory or None}).items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}; set {name}")


def _metrics(metrics: Metrics | str | None, items: Items, prior: Prior) -> Metrics:
    """Ready for images of the prior's size."""
    chosen = Metrics() if metrics is None else _one(Metrics, "metrics", metrics)
    if items.has_truth:
        chosen.prepare(prior.size)
    return chosen


def _device(settings: TrainerSettings) -> str:
    if settings.world > 1:
        raise ValueError(f"restore uses one device, got a trainer of {settings.world}; evaluate.py shares images among several")
    return "cuda" if settings.on_gpu else "cpu"


def _report(walks: int, method: Method) -> closing[ProgressReport]:
    """A bar on a terminal and in a notebook, a line every few seconds elsewhere; steps, and the tiles of a step."""
    terminal = True if "ipykernel" in sys.modules else None
    report = ProgressReport(walks, stream=sys.stderr, residual=method.solver.uses_measurement, terminal=terminal)
    report.watch(method.prior.network)
    return closing(report)


def _restored(module: RestorationModule, items: Items, batches: Sequence[range]) -> Restored:
    """All batches, one after the other, on the CPU."""
    try:
        done = [_on_cpu(module.predict_step(_moved(collate([items[index] for index in group]), module.device))) for group in batches]
    except torch.OutOfMemoryError as error:
        raise ValueError("out of memory; lower batch_size or images_per_call, or set trainer=dp.part('trainer', 'gpu')") from error
    return joined([(restored, len(restored.ids)) for restored in done])


def _method(
    prior: Prior,
    operator: Operator | str | None,
    noise_model: NoiseModel | str,
    solver: Solver | str,
    sampler: Sampler | str | None,
    grid: Grid | str,
    steps: int | None,
) -> Method:
    chosen = _one(Solver, "solver", solver)
    if operator is None and chosen.uses_measurement:
        raise ValueError('operator= is not set; say what degrades the image, as in operator="inpaint_box"')
    if isinstance(grid, Grid) and steps is not None:
        raise ValueError(f"the grid has its own number of steps, {grid.steps}; leave out steps={steps}")
    walked = grid if isinstance(grid, Grid) else part("grid", grid, steps=STEPS if steps is None else steps)
    method = Method(
        operator=Identity() if operator is None else _one(Operator, "operator", operator),
        noise_model=_one(NoiseModel, "noise_model", noise_model),
        solver=chosen,
        grid=walked,
        sampler=_default_sampler(chosen, prior) if sampler is None else _one(Sampler, "sampler", sampler),
        prior=prior,
    )
    if chosen.sampler_type is None and sampler is not None:
        raise ValueError(f"{type(chosen).__name__} moves by itself and uses no sampler; leave out sampler=")
    return method


def _default_sampler(solver: Solver, prior: Prior) -> Sampler:
    """The sampler that the solver's option chooses, else the prior's, else that of sample.yaml."""
    for made in (MADE.get(solver), MADE.get(prior)):
        if made is not None and "sampler" in made.chosen:
            return part("sampler", made.chosen["sampler"].option, **made.chosen["sampler"].settings)
    return part("sampler", "ddpm")


def _items(
    method: Method,
    image: Images | None,
    measurement: Images | None,
    fit: Fit,
    ids: Sequence[str] | None,
    num_samples: int,
    pixel_range: PixelRange | None,
) -> Items:
    if image is not None and measurement is not None:
        raise ValueError("image= is clean and measurement= is degraded; give one of them")
    if not method.solver.uses_measurement:
        if image is not None or measurement is not None:
            raise ValueError("this solver looks at no image; leave out image= and measurement=, or choose another solver")
        return NoImages(num_samples)
    if image is not None:
        return clean_items(image, method, fit, ids, num_samples, pixel_range)
    if measurement is None:
        raise ValueError("there is nothing to restore; give image= (clean, to degrade and restore) or measurement= (degraded already)")
    return measured_items(measurement, method, fit, ids, num_samples)


def _one(kind: type[Part], group: str, given: Part | str) -> Part:
    """The part itself, or the option of that name."""
    if isinstance(given, str):
        return part(group, given)
    if not isinstance(given, kind):
        raise ValueError(f"{group}= is a {type(given).__name__}, and no {kind.__name__}; give one, or the name of an option")
    return given


def _measurement_key(method: Method) -> str:
    """What stands for operator and noise in measurement_hash: as in a run of the scripts for parts by name, else their classes."""
    operator, noise = MADE.get(method.operator), MADE.get(method.noise_model)
    if operator is not None and noise is not None:
        return json.dumps(measurement_spec(operator.config, noise.config), sort_keys=True, default=str)
    return f"{method.operator!r} {type(method.noise_model).__name__}"


def _moved(batch: Batch, device: torch.device) -> Batch:
    truth, measured = (None if images is None else images.to(device) for images in (batch.truth, batch.measured))
    return batch._replace(truth=truth, measured=measured)


def _on_cpu(value: Any) -> Any:
    """The same with every tensor on the CPU, inside tuples and lists too."""
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_on_cpu, value))
    return [_on_cpu(item) for item in value] if isinstance(value, list) else value
