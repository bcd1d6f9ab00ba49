"""How good a prior is: denoising PSNR by noise level, samples, and restorations of fixed images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.grids import Grid
from diffusion_priors.diffusion.image_random import ImageRandom, image_generator
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.samplers import Sampler
from diffusion_priors.evaluation.metrics.per_image import Metrics, psnr
from diffusion_priors.evaluation.reporting.figure import draw_figure
from diffusion_priors.evaluation.restoration.batches import Batch, Restored
from diffusion_priors.evaluation.restoration.module import RestorationModule, never
from diffusion_priors.images.io import to_image
from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.identity import Identity
from diffusion_priors.operators.noise_models import NoiseModel, NoNoise
from diffusion_priors.solvers.base import Solver
from diffusion_priors.solvers.unconditional import Unconditional
from diffusion_priors.training.module import training_levels


@dataclass
class Findings:
    """`values` by name, and image sheets by name."""

    values: dict[str, float]
    images: dict[str, Image.Image]


MOST = {"every": 10**9, "denoise": 100_000, "samples": 1000, "restore": 1000, "batch_size": 100_000}
"""The images of `samples` and `restore` are held in memory and drawn in one sheet."""


class Validation:
    """Evaluate a prior every `every` steps, always on the same images and with the same noise.

    `denoise` images give the denoising PSNR at the 0-based schedule indices `levels`. `restore` of them are degraded by
    `operator` and `noise_model` and restored by `solver`. `samples` unconditional samples are drawn. Samples and
    restorations use `grid` and `sampler`. Each of the three counts may be 0.

    Raises ValueError for numbers out of bounds.
    """

    def __init__(
        self,
        operator: Operator,
        noise_model: NoiseModel,
        solver: Solver,
        grid: Grid,
        sampler: Sampler,
        every: int = 1000,
        levels: tuple[int, ...] = (100, 300, 500, 700, 900),
        denoise: int = 48,
        samples: int = 16,
        restore: int = 4,
        batch_size: int = 16,
    ) -> None:
        for name, value, least in (
            ("every", every, 1),
            ("denoise", denoise, 0),
            ("samples", samples, 0),
            ("restore", restore, 0),
            ("batch_size", batch_size, 1),
        ):
            if not least <= value <= MOST[name]:
                raise ValueError(f"validation.{name} must be {least} to {MOST[name]}, got {value}; set validation.{name}")
        self.operator, self.noise_model, self.solver, self.grid, self.sampler = operator, noise_model, solver, grid, sampler
        self.every, self.levels, self.batch_size = every, levels, batch_size
        self.denoise, self.samples, self.restore = denoise, samples, restore

    def check(self, prior: Prior) -> None:
        """Raises ValueError if the prior lacks one of the levels, or if the components do not fit together."""
        self.solver.check(self.operator, self.noise_model, self.sampler)
        self.denoising_levels(prior)
        for solver in (Unconditional(), self.solver):
            solver.plan(self.grid, prior.image_schedule)
        self.operator.draw(torch.zeros(1, prior.channels, *prior.size), [image_generator(0, "check")])
        self.sampler.check(prior.probe())

    def denoising_levels(self, prior: Prior) -> list[NoiseLevel]:
        """The levels of the denoising PSNR, in the [-1, 1] units of images. Raises ValueError for one outside the schedule."""
        total = len(training_levels(prior))
        for t in self.levels:
            if not 0 <= t < total:
                raise ValueError(f"the level {t} lies outside the schedule, 0 to {total - 1}; set validation.levels")
        return [prior.image_schedule.level(t) for t in self.levels]

    def __call__(
        self, denoiser: Denoiser, prior: Prior, images: Sequence[tuple[str, Tensor]], poll: Callable[[], bool] = never
    ) -> Findings:
        """Evaluate `denoiser`, made from `prior`, on the fixed set of (id, image (C, H, W) in [-1, 1]).

        `poll` is called after every few network calls; what it raises ends the validation.
        """
        values: dict[str, float] = {}
        sheets: dict[str, Image.Image] = {}
        if self.denoise:
            found = denoising_psnr(denoiser, self.denoising_levels(prior), images[: self.denoise], self.batch_size, poll)
            values |= {f"denoising_psnr/t{t}": value for t, value in zip(self.levels, found, strict=True)}
        if self.samples:
            unconditional = Batch(("validation",) * self.samples, tuple(range(self.samples)), None, None)
            made = self._restore(denoiser, prior, unconditional, Unconditional(), Identity(), NoNoise(), poll)
            sheets["samples"] = sheet([to_image(x) for done in made for x in done.x0])
        if self.restore and images:
            chosen = images[: self.restore]
            batch = Batch(tuple(name for name, _ in chosen), (0,) * len(chosen), torch.stack([x for _, x in chosen]), None)
            made = self._restore(denoiser, prior, batch, self.solver, self.operator, self.noise_model, poll)
            rows = [_row(done, b) for done in made for b in range(len(done.ids))]
            scores = [record["psnr"] for done in made for record in done.records if record["psnr"] is not None]
            if scores:
                values["restoration_psnr"] = sum(scores) / len(scores)
            sheets["restoration"] = draw_figure(rows, "truth · measurement · restoration")
        return Findings(values, sheets)

    def _restore(
        self,
        denoiser: Denoiser,
        prior: Prior,
        batch: Batch,
        solver: Solver,
        operator: Operator,
        noise_model: NoiseModel,
        poll: Callable[[], bool],
    ) -> list[Restored]:
        plan, shape = solver.plan(self.grid, prior.image_schedule), (prior.channels, *prior.size)
        module = RestorationModule(denoiser, solver, operator, noise_model, self.sampler, plan, Metrics(), shape, should_stop=poll)
        module.to(next(denoiser.parameters()).device)
        return [module.predict_step(part) for part in _split(batch, self.batch_size, module.device)]


@torch.no_grad()
def denoising_psnr(
    denoiser: Denoiser,
    levels: Sequence[NoiseLevel],
    images: Sequence[tuple[str, Tensor]],
    batch_size: int = 16,
    poll: Callable[[], bool] = never,
) -> list[float]:
    """Mean over the images of the PSNR (dB) of x̂0, clamped, on [0, 1] images, at each level. One draw of noise per image and level.

    `poll` is called before every network call; what it raises ends the evaluation.
    """
    device = next(denoiser.parameters()).device
    means = []
    for level in levels:
        values = []
        for start in range(0, len(images), batch_size):
            poll()
            batch = images[start : start + batch_size]
            x0 = torch.stack([x for _, x in batch]).to(device)
            rng = ImageRandom([image_generator(0, name, level.t, "denoising") for name, _ in batch])
            restored = denoiser(level.diffuse(x0, rng.normal(x0)), level).x0.clamp(-1.0, 1.0)
            values += psnr((restored + 1) / 2, (x0 + 1) / 2).tolist()
        means.append(sum(values) / len(values))
    return means


def sheet(images: Sequence[Image.Image], columns: int = 8, gap: int = 2) -> Image.Image:
    """One image of many, in rows of `columns`, at their own size or, below 96 pixels, at twice that."""
    width, height = images[0].size
    scale = 2 if max(width, height) < 96 else 1
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    step_x, step_y = width * scale + gap, height * scale + gap
    page = Image.new("RGB", (columns * step_x + gap, rows * step_y + gap), "white")
    for i, image in enumerate(images):
        enlarged = image.convert("RGB").resize((width * scale, height * scale), Image.Resampling.NEAREST)
        page.paste(enlarged, (gap + i % columns * step_x, gap + i // columns * step_y))
    return page


def _split(batch: Batch, size: int, device: torch.device) -> list[Batch]:
    """`batch` in batches of at most `size` images, on `device`."""

    def cut(start: int) -> Batch:
        truth = None if batch.truth is None else batch.truth[start : start + size].to(device)
        return Batch(batch.ids[start : start + size], batch.samples[start : start + size], truth, None)

    return [cut(start) for start in range(0, len(batch.ids), size)]


def _row(done: Restored, b: int) -> list[tuple[str, Image.Image]]:
    """The captioned tiles of image b: ground truth, measurement, restoration."""
    record = done.records[b]

    def label(kind: str, psnr: float | None) -> str:
        return kind if psnr is None else f"{kind}\n{psnr:.2f} dB"

    tiles = [("truth", to_image(done.truth[b]))]
    if done.measurement_image is not None:
        tiles.append((label("measurement", record["psnr_measurement"]), to_image(done.measurement_image[b])))
    return [*tiles, (label("restoration", record["psnr"]), to_image(done.x0[b]))]
