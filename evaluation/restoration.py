"""The LightningModule that restores a batch of pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from time import perf_counter

import pytorch_lightning as pl
import torch
from torch import Tensor

from diffusion.denoiser import Denoiser
from diffusion.levels import NoiseLevel
from diffusion.noise import ImageNoise, image_generator
from diffusion.transitions import Transition
from evaluation.data import Batch
from evaluation.metrics import NAMES, Metrics
from operators.base import Operator
from operators.noise import Measurement, MeasurementNoise
from solvers.base import Problem, Progress, Solution, Solver

Report = Callable[[Problem, Progress], bool | None]


@dataclass
class Restored:
    """One finished batch: `x0` and `truth` (B, C, H, W), `y` (B, C', H', W'), in [-1, 1], and a record per item.

    `truth` and `y` are None where there is none.
    """

    ids: tuple[str, ...]
    samples: tuple[int, ...]
    truth: Tensor | None
    y: Tensor | None
    x0: Tensor
    records: list[dict]


class RestorationModule(pl.LightningModule):
    """Degrade (where the truth is given), restore, measure. Gradients are needed: use Trainer(inference_mode=False).

    An item's result is a function of (configuration, seed, picture id, sample) alone: the measurement is drawn
    from the generator of (seed, id), so that every sample and every solver sees the same y, and the sampling
    noise from that of (seed, id, sample). `image_shape` is (C, H, W).
    """

    def __init__(
        self,
        denoiser: Denoiser,
        solver: Solver,
        operator: Operator,
        noise: MeasurementNoise,
        transition: Transition,
        levels: list[NoiseLevel],
        metrics: Metrics,
        image_shape: tuple[int, int, int],
        seed: int = 0,
        report: Report | None = None,
    ) -> None:
        super().__init__()
        self.denoiser, self.operator, self.metrics = denoiser, operator, metrics
        self.solver, self.noise, self.transition, self.levels = solver, noise, transition, levels
        self.image_shape, self.seed, self.report = image_shape, seed, report

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Restored:
        started = perf_counter()
        measurement = self.measure(batch)
        problem = self.problem(batch, measurement)
        observe = None if self.report is None else lambda progress: self.report(problem, progress)
        solution = self.solver.solve(problem, self.levels, observe)
        seconds = (perf_counter() - started) / len(batch.ids)
        records = self.records(batch, problem, solution, seconds)
        y = measurement.y if self.solver.uses_measurement else None
        return Restored(batch.ids, batch.samples, batch.truth, y, solution.x0, records)

    def measure(self, batch: Batch) -> Measurement:
        """Draw the operator for these pictures and make y, or take the y that was given."""
        generators = [image_generator(self.seed, name, "measurement") for name in batch.ids]
        self.operator.draw(self.blank(batch), generators)
        if batch.measured is not None:
            return self.noise.measured(self.operator, batch.measured)
        return self.noise.measure(self.operator, self.blank(batch) if batch.truth is None else batch.truth, generators)

    def problem(self, batch: Batch, measurement: Measurement) -> Problem:
        sampling = [image_generator(self.seed, name, number, "sampling") for name, number in zip(batch.ids, batch.samples, strict=True)]
        return Problem(
            denoiser=self.denoiser,
            transition=self.transition,
            operator=self.operator,
            y=measurement.y,
            sigma_y=measurement.sigma_y,
            blank=self.blank(batch),
            noise=ImageNoise(sampling),
        )

    def blank(self, batch: Batch) -> Tensor:
        return torch.zeros(len(batch.ids), *self.image_shape, device=self.device)

    def records(self, batch: Batch, problem: Problem, solution: Solution, seconds: float) -> list[dict]:
        """One plain dictionary per item, as records.jsonl holds it; what has no value, or no finite one, is None."""
        restored = self._scores(solution.x0, batch.truth)
        measured = {name: None for name in NAMES}
        residual = sigma = None
        if self.solver.uses_measurement:
            residual = problem.misfit(solution.x0).tolist()
            sigma = problem.sigma_y.flatten().tolist()
            measured = self._scores(problem.operator.picture(problem.y), batch.truth)

        def at(values: list[float] | None, b: int) -> float | None:
            return None if values is None or not isfinite(values[b]) else values[b]

        records = []
        for b, (name, sample, failed) in enumerate(zip(batch.ids, batch.samples, solution.failed_at, strict=True)):
            scores = {key: None if failed is not None else at(restored[key], b) for key in NAMES}
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
                | {f"{key}_measurement": at(measured[key], b) for key in NAMES}
                | {"error": None if failed is None else _failure(failed, solution.levels)}
            )
        return records

    def _scores(self, x: Tensor, truth: Tensor | None) -> dict[str, list[float] | None]:
        return {name: None for name in NAMES} if truth is None else self.metrics(x, truth)


def _failure(step: int, levels: list[NoiseLevel]) -> str:
    return f"not finite after step {step + 1} of {len(levels) - 1}, from t = {levels[step].t}: the network or the guidance diverged"
