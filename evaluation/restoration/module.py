"""The LightningModule that restores a batch of images."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import pytorch_lightning as pl
import torch
from torch import Tensor

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.image_random import ImageRandom, image_generator
from diffusion_priors.diffusion.samplers import Sampler
from diffusion_priors.evaluation.metrics.per_image import Metrics
from diffusion_priors.evaluation.restoration.batches import Batch, Restored, measurement_hash, views_of
from diffusion_priors.evaluation.restoration.groups import groups_of, joined
from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.measurement import Measurement
from diffusion_priors.operators.noise_models import NoiseModel
from diffusion_priors.runs.memory import peak_mib
from diffusion_priors.runs.reading.records import Record
from diffusion_priors.solvers.base import Problem, Progress, Solution, Solver, Step
from diffusion_priors.solvers.trajectory import Trajectory

Report = Callable[[Problem, Progress], object]
"""Called after every step of the solver, to show the progress."""


def never() -> bool:
    return False


class RestorationModule(pl.LightningModule):
    """Degrade (where the truth is given), restore, measure. Any Lightning Trainer runs it, as in `trainer.predict(module, batches)`.

    An item's result is a function of (configuration, seed, image id, sample) alone. The measurement is drawn from the
    generator of (seed, id), so that every sample and every solver sees the same y, and the sampling noise from that
    of (seed, id, sample). `measurement_seed` is the seed of measurements that were made before. `measurement_key`
    stands for operator and noise in the records' measurement_hash. `image_shape` is (C, H, W).

    `images_per_call` is the number of images that network, operator and metrics see at once, whatever the batch; None: the
    batch. With it an item's result is the same bit by bit in any batch, else it is up to rounding.

    `frames` is the number of x̂0 that are kept of each walk, at equal distances over its steps; True keeps all.

    `should_stop` is asked after every step. Once its answer is true, the present batch and all later ones come out
    without items, and `interrupted` is true.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        solver: Solver,
        operator: Operator,
        noise_model: NoiseModel,
        sampler: Sampler,
        plan: list[Step],
        metrics: Metrics,
        image_shape: tuple[int, int, int],
        seed: int = 0,
        measurement_seed: int | None = None,
        measurement_key: str = "",
        report: Report | None = None,
        should_stop: Callable[[], bool] = never,
        images_per_call: int | None = None,
        frames: bool | int = False,
    ) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # fewer batches than processes
        self.denoiser, self.operator, self.metrics = denoiser, operator, metrics
        self.solver, self.noise_model, self.sampler, self.plan = solver, noise_model, sampler, plan
        self.image_shape, self.seed = image_shape, seed
        self.measurement_seed = seed if measurement_seed is None else measurement_seed
        self.measurement_key = measurement_key
        self.report, self.should_stop, self.interrupted = report, should_stop, False
        self.images_per_call, self.frames = images_per_call, frames

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Restored:
        """Restore `batch`. Lightning's inference mode is left for that: guided methods need gradients."""
        with torch.inference_mode(False), torch.no_grad():
            return self.restore(batch.outside_inference_mode())

    def restore(self, batch: Batch) -> Restored:
        done = []
        for group, count in groups_of(batch, self.images_per_call):
            self.interrupted = self.interrupted or self.should_stop()
            if not self.interrupted:
                done.append((self._restore(group, count), count))
            if self.interrupted:  # before this group or while it was restored
                return self._nothing(batch)
        return joined(done)

    def _restore(self, batch: Batch, count: int) -> Restored:
        """Restore these images, of which the first `count` are wanted."""
        started = perf_counter()
        measurement = self.measure(batch) if self.solver.uses_measurement else None
        problem = Problem(self.denoiser, measurement, self.sampler, self.sampling_noise(batch), self.like(batch))
        trajectory = Trajectory(len(self.plan), self.frames) if self.frames else None
        solution = self.solver.solve(problem, self.plan, lambda progress: self._observe(problem, progress, trajectory))
        if self.interrupted:
            return self._nothing(batch)
        seconds = (perf_counter() - started) / count
        records = self.records(batch, measurement, solution, seconds)
        y = None if measurement is None else measurement.y
        image = None if y is None else self.operator.as_image(y)
        views = None if y is None else views_of(self.operator, y)
        film = None if trajectory is None else trajectory.stacked()
        return Restored(batch.ids, batch.samples, batch.truth, y, solution.x0, records, solution.start, image, views, film)

    def _observe(self, problem: Problem, progress: Progress, trajectory: Trajectory | None) -> bool:
        """True ends the solver's walk."""
        if trajectory is not None:
            trajectory.add(progress)
        if self.report is not None:
            self.report(problem, progress)
        self.interrupted = self.should_stop()
        return self.interrupted

    def _nothing(self, batch: Batch) -> Restored:
        return Restored((), (), None, None, self.like(batch)[:0], [])

    def measure(self, batch: Batch) -> Measurement:
        """Draw the operator for these images and make y, or take the y that was given."""
        generators = [image_generator(self.measurement_seed, name, "measurement") for name in batch.ids]
        self.operator.draw(self.like(batch), generators)
        if batch.measured is not None:
            return Measurement.given(self.operator, self.noise_model, batch.measured)
        return Measurement.of(self.operator, self.noise_model, self.like(batch) if batch.truth is None else batch.truth, generators)

    def sampling_noise(self, batch: Batch) -> ImageRandom:
        items = zip(batch.ids, batch.samples, strict=True)
        return ImageRandom([image_generator(self.seed, name, number, "sampling") for name, number in items])

    def like(self, batch: Batch) -> Tensor:
        """Zeros of x0's shape, (B, C, H, W), on the module's device."""
        return torch.zeros(len(batch.ids), *self.image_shape, device=self.device)

    def records(self, batch: Batch, measurement: Measurement | None, solution: Solution, seconds: float) -> list[dict]:
        """One plain dictionary per item, as records.jsonl holds it."""
        items = range(len(batch.ids))
        residual = sigma = hashes = [None for _ in items]
        if measurement is not None:
            residual = measurement.rms_residual(solution.x0).tolist()
            sigma = measurement.sigma_y.flatten().tolist()
            hashes = self._hashes(batch)
        scores = self._scores(solution.x0, batch)
        measured = self._scores(self._measurement_to_score(measurement), batch)
        info = {name: values.tolist() for name, values in solution.info.items()}
        peak = peak_mib(self.device)
        errors = [None if step is None else _failure(step, solution.plan) for step in solution.failed_at]

        def record(b: int) -> Record:
            failed = errors[b] is not None
            return Record(
                id=batch.ids[b],
                sample=batch.samples[b],
                seed=self.seed,
                scores={name: None if failed else values[b] for name, values in scores.items()},
                measurement_scores={name: values[b] for name, values in measured.items()},
                residual=None if failed else residual[b],
                nfe_forward=solution.forwards,
                nfe_vjp=solution.vjps,
                seconds=seconds,
                sigma_y=sigma[b],
                measurement_hash=hashes[b],
                peak_memory_mib=peak,
                info={name: values[b] for name, values in info.items()},
                error=errors[b],
            )

        return [record(b).to_dict() for b in items]

    def _measurement_to_score(self, measurement: Measurement | None) -> Tensor | None:
        """y as an image of x0's size; None where y is no image."""
        if measurement is None or self.operator.as_image(measurement.y) is None:
            return None
        return self.operator.initial_image(measurement.y)

    def _scores(self, x: Tensor | None, batch: Batch) -> dict[str, list]:
        """The metrics of x against the truth, a value per item; None where either is unknown."""
        if x is None or batch.truth is None:
            return {name: [None] * len(batch.ids) for name in self.metrics.names}
        return self.metrics(x, batch.truth)

    def _hashes(self, batch: Batch) -> list[str]:
        given = batch.measured if batch.truth is None else batch.truth
        images = [None] * len(batch.ids) if given is None else given
        return [measurement_hash(self.measurement_key, self.measurement_seed, *item) for item in zip(batch.ids, images, strict=True)]


def _failure(step: int, plan: list[Step]) -> str:
    return f"not finite after step {step + 1} of {len(plan)}, from t = {plan[step].now.t:g}: the network or the guidance diverged"
