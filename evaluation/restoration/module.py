"""The LightningModule that restores a batch of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from math import isfinite
from time import perf_counter

import pytorch_lightning as pl
import torch
from torch import Tensor

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.image_random import ImageRandom, image_generator
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.transitions import Transition
from diffusion_priors.evaluation.metrics.per_image import Metrics
from diffusion_priors.evaluation.restoration.batches import Batch
from diffusion_priors.images.io import as_bits
from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.noise_models import Measurement, NoiseModel
from diffusion_priors.runs.memory import peak_mib
from diffusion_priors.solvers.base import Problem, Progress, Solution, Solver

Report = Callable[[Problem, Progress], bool | None]


@dataclass
class Restored:
    """One finished batch: `x0` and `truth` (B, C, H, W), `y` (B, C', H', W'), in [-1, 1], and a record per item.

    `truth` and `y` are None where there is none, `start` (the noised image, (B, C, H, W)) for solvers that start
    from noise.
    """

    ids: tuple[str, ...]
    samples: tuple[int, ...]
    truth: Tensor | None
    y: Tensor | None
    x0: Tensor
    records: list[dict]
    start: Tensor | None = None


class RestorationModule(pl.LightningModule):
    """Degrade (where the truth is given), restore, measure. Gradients are needed: use Trainer(inference_mode=False).

    An item's result is a function of (configuration, seed, image id, sample) alone: the measurement is drawn
    from the generator of (seed, id), so that every sample and every solver sees the same y, and the sampling
    noise from that of (seed, id, sample). `measurement_seed` is the seed of measurements that were made before.
    `problem_key` stands for operator and noise in the records' measurement_hash. `image_shape` is (C, H, W).
    """

    def __init__(
        self,
        denoiser: Denoiser,
        solver: Solver,
        operator: Operator,
        noise_model: NoiseModel,
        transition: Transition,
        levels: list[NoiseLevel],
        metrics: Metrics,
        image_shape: tuple[int, int, int],
        seed: int = 0,
        measurement_seed: int | None = None,
        problem_key: str = "",
        report: Report | None = None,
    ) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # fewer batches than processes
        self.denoiser, self.operator, self.metrics = denoiser, operator, metrics
        self.solver, self.noise_model, self.transition, self.levels = solver, noise_model, transition, levels
        self.image_shape, self.seed, self.report = image_shape, seed, report
        self.measurement_seed = seed if measurement_seed is None else measurement_seed
        self.problem_key = problem_key

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Restored:
        started = perf_counter()
        measurement = self.measure(batch)
        problem = self.problem(batch, measurement)
        observe = None if self.report is None else lambda progress: self.report(problem, progress)
        solution = self.solver.solve(problem, self.levels, observe)
        seconds = (perf_counter() - started) / len(batch.ids)
        records = self.records(batch, problem, solution, seconds)
        y = measurement.y if self.solver.uses_measurement else None
        return Restored(batch.ids, batch.samples, batch.truth, y, solution.x0, records, self.start(batch, problem))

    def start(self, batch: Batch, problem: Problem) -> Tensor | None:
        """The image the solver started from, drawn again from the same generators; None where that is noise alone."""
        if not self.solver.starts_from_image:
            return None
        return self.solver.init(replace(problem, rng=self.sampling_noise(batch)), self.levels[0])

    def measure(self, batch: Batch) -> Measurement:
        """Draw the operator for these images and make y, or take the y that was given."""
        generators = [image_generator(self.measurement_seed, name, "measurement") for name in batch.ids]
        self.operator.draw(self.blank(batch), generators)
        if batch.measured is not None:
            return self.noise_model.measured(self.operator, batch.measured)
        return self.noise_model.measure(self.operator, self.blank(batch) if batch.truth is None else batch.truth, generators)

    def problem(self, batch: Batch, measurement: Measurement) -> Problem:
        return Problem(
            denoiser=self.denoiser,
            transition=self.transition,
            operator=self.operator,
            y=measurement.y,
            sigma_y=measurement.sigma_y,
            blank=self.blank(batch),
            rng=self.sampling_noise(batch),
        )

    def sampling_noise(self, batch: Batch) -> ImageRandom:
        items = zip(batch.ids, batch.samples, strict=True)
        return ImageRandom([image_generator(self.seed, name, number, "sampling") for name, number in items])

    def blank(self, batch: Batch) -> Tensor:
        return torch.zeros(len(batch.ids), *self.image_shape, device=self.device)

    def records(self, batch: Batch, problem: Problem, solution: Solution, seconds: float) -> list[dict]:
        """One plain dictionary per item, as records.jsonl holds it; what has no value, or no finite one, is None."""
        restored = self._scores(solution.x0, batch.truth)
        names = self.metrics.names
        measured = {name: None for name in names}
        residual = sigma = hashes = None
        peak = peak_mib(self.device)
        if self.solver.uses_measurement:
            residual = problem.misfit(solution.x0).tolist()
            sigma = problem.sigma_y.flatten().tolist()
            hashes = self._hashes(batch)
            measured = self._scores(problem.operator.initial_image(problem.y), batch.truth)

        def at(values: list[float] | None, b: int) -> float | None:
            return None if values is None or not isfinite(values[b]) else values[b]

        records = []
        for b, (name, sample, failed) in enumerate(zip(batch.ids, batch.samples, solution.failed_at, strict=True)):
            scores = {key: None if failed is not None else at(restored[key], b) for key in names}
            records.append(
                {"id": name, "sample": sample, "seed": self.seed}
                | scores
                | {
                    "residual": None if failed is not None else at(residual, b),
                    "nfe_forward": solution.forwards,
                    "nfe_vjp": solution.vjps,
                    "seconds": seconds,
                    "sigma_y": at(sigma, b),
                }
                | {f"{key}_measurement": at(measured[key], b) for key in names}
                | {
                    "measurement_hash": hashes and hashes[b],
                    "peak_memory_mib": peak,
                    "error": None if failed is None else _failure(failed, solution.levels),
                }
            )
        return records

    def _scores(self, x: Tensor, truth: Tensor | None) -> dict[str, list[float] | None]:
        return {name: None for name in self.metrics.names} if truth is None else self.metrics(x, truth)

    def _hashes(self, batch: Batch) -> list[str]:
        """Which y each image has: of its pixels, the operator, the noise and the seed, not of floats that differ by machine."""
        given = batch.measured if batch.truth is None else batch.truth
        images = [None] * len(batch.ids) if given is None else given
        return [measurement_hash(self.problem_key, self.measurement_seed, *item) for item in zip(batch.ids, images, strict=True)]


def measurement_hash(problem_key: str, seed: int, name: str, image: Tensor | None) -> str:
    row = b"" if image is None else as_bits(image).numpy().tobytes()
    return blake2b(repr((problem_key, seed, name)).encode() + row, digest_size=8).hexdigest()


def _failure(step: int, levels: list[NoiseLevel]) -> str:
    return f"not finite after step {step + 1} of {len(levels) - 1}, from t = {levels[step].t}: the network or the guidance diverged"
