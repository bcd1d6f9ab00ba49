"""What a prior is worth: denoising PSNR by noise level, samples, and restorations of fixed images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.grids import Grid
from diffusion_priors.diffusion.image_random import ImageRandom, image_generator
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.transitions import Transition
from diffusion_priors.evaluation.metrics.per_image import Metrics
from diffusion_priors.evaluation.reporting.figure import draw_figure
from diffusion_priors.evaluation.restoration.batches import Batch
from diffusion_priors.evaluation.restoration.module import RestorationModule, Restored
from diffusion_priors.images.io import to_image
from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.identity import Identity
from diffusion_priors.operators.noise_models import NoiseModel, NoNoise
from diffusion_priors.solvers.base import Solver
from diffusion_priors.solvers.unconditional import Unconditional


@dataclass
class Findings:
    """`figures` are numbers by name, `images` sheets by name."""

    figures: dict[str, float]
    images: dict[str, Image.Image]


class Validation:
    """Looks at a prior every so many steps, always with the same images and the same noise.

    `denoise` images give the denoising PSNR at the 0-based indices `levels`; `restore` of them are degraded by
    `operator` and `noise_model` and restored by `solver`; `samples` are drawn. Samples and restorations walk `grid` with
    `transition`. Any of the three numbers may be 0.

    Raises ValueError for numbers out of bounds.
    """

    def __init__(
        self,
        operator: Operator,
        noise_model: NoiseModel,
        solver: Solver,
        grid: Grid,
        transition: Transition,
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
            if value < least:
                raise ValueError(f"validation.{name} must be at least {least}, got {value}; set validation.{name}")
        self.operator, self.noise_model, self.solver, self.grid, self.transition = operator, noise_model, solver, grid, transition
        self.every, self.levels, self.batch_size = every, levels, batch_size
        self.denoise, self.samples, self.restore = denoise, samples, restore

    def check(self, prior: Prior) -> None:
        """Raises ValueError where the prior has no such levels, or does not go with the solver or the transition."""
        total = len(prior.levels)
        for t in self.levels:
            if not 0 <= t < total:
                raise ValueError(f"the level {t} lies outside the schedule's 0 to {total - 1}; set validation.levels")
        self.grid(prior.levels)
        self.solver.levels(self.grid, prior.levels)
        self.operator.draw(torch.zeros(1, prior.channels, *prior.size), [image_generator(0, "check")])
        self.transition.check(prior.probe())

    def __call__(self, denoiser: Denoiser, prior: Prior, images: Sequence[tuple[str, Tensor]]) -> Findings:
        """Look at `denoiser`, of `prior`, with (id, image (C, H, W) in [-1, 1]) of the fixed set."""
        figures: dict[str, float] = {}
        sheets: dict[str, Image.Image] = {}
        if self.denoise:
            found = denoising_psnr(denoiser, [prior.levels[t] for t in self.levels], images[: self.denoise], self.batch_size)
            figures |= {f"denoising_psnr/t{t}": psnr for t, psnr in zip(self.levels, found, strict=True)}
        if self.samples:
            blank = Batch(("validation",) * self.samples, tuple(range(self.samples)), None, None)
            made = self._restore(denoiser, prior, blank, Unconditional(), Identity(), NoNoise())
            sheets["samples"] = sheet([to_image(x) for done in made for x in done.x0])
        if self.restore and images:
            chosen = images[: self.restore]
            batch = Batch(tuple(name for name, _ in chosen), (0,) * len(chosen), torch.stack([x for _, x in chosen]), None)
            made = self._restore(denoiser, prior, batch, self.solver, self.operator, self.noise_model)
            rows = [_row(done, b) for done in made for b in range(len(done.ids))]
            scores = [record["psnr"] for done in made for record in done.records if record["psnr"] is not None]
            if scores:
                figures["restoration_psnr"] = sum(scores) / len(scores)
            sheets["restoration"] = draw_figure(rows, "truth · measurement · restoration")
        return Findings(figures, sheets)

    def _restore(
        self, denoiser: Denoiser, prior: Prior, batch: Batch, solver: Solver, operator: Operator, noise_model: NoiseModel
    ) -> list[Restored]:
        levels = solver.levels(self.grid, prior.levels)
        module = RestorationModule(
            denoiser, solver, operator, noise_model, self.transition, levels, Metrics(), (prior.channels, *prior.size)
        ).to(next(denoiser.parameters()).device)
        return [module.predict_step(part) for part in _parts(batch, self.batch_size, module.device)]


@torch.no_grad()
def denoising_psnr(
    denoiser: Denoiser, levels: Sequence[NoiseLevel], images: Sequence[tuple[str, Tensor]], batch_size: int = 16
) -> list[float]:
    """Mean over the images of the PSNR (dB) of x̂0, clamped, on [0, 1] images, at each level. One draw of noise an image and level."""
    device = next(denoiser.parameters()).device
    means = []
    for level in levels:
        values = []
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            x0 = torch.stack([x for _, x in part]).to(device)
            noise = ImageRandom([image_generator(0, name, level.t, "denoising") for name, _ in part])
            restored = denoiser(level.diffuse(x0, noise.normal(x0)), level).x0.clamp(-1.0, 1.0)
            values += (
                peak_signal_noise_ratio((restored + 1) / 2, (x0 + 1) / 2, data_range=1.0, dim=(1, 2, 3), reduction="none")
                .reshape(-1)
                .tolist()
            )
        means.append(sum(values) / len(values))
    return means


def sheet(images: Sequence[Image.Image], columns: int = 8, gap: int = 2) -> Image.Image:
    """Images side by side, row after row, at their own size (twice that below 96 pixels)."""
    width, height = images[0].size
    scale = 2 if max(width, height) < 96 else 1
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    step_x, step_y = width * scale + gap, height * scale + gap
    whole = Image.new("RGB", (columns * step_x + gap, rows * step_y + gap), "white")
    for i, image in enumerate(images):
        enlarged = image.convert("RGB").resize((width * scale, height * scale), Image.Resampling.NEAREST)
        whole.paste(enlarged, (gap + i % columns * step_x, gap + i // columns * step_y))
    return whole


def _parts(batch: Batch, size: int, device: torch.device) -> list[Batch]:
    def cut(start: int) -> Batch:
        truth = None if batch.truth is None else batch.truth[start : start + size].to(device)
        return Batch(batch.ids[start : start + size], batch.samples[start : start + size], truth, None)

    return [cut(start) for start in range(0, len(batch.ids), size)]


def _row(done: Restored, b: int) -> list[tuple[str, Image.Image]]:
    record = done.records[b]

    def label(kind: str, psnr: float | None) -> str:
        return kind if psnr is None else f"{kind}\n{psnr:.2f} dB"

    tiles = [("truth", to_image(done.truth[b]))]
    if done.y is not None:
        tiles.append((label("measurement", record["psnr_measurement"]), to_image(done.y[b])))
    return [*tiles, (label("restoration", record["psnr"]), to_image(done.x0[b]))]
