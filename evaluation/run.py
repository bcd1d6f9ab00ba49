"""One restoration run from built parts to an output folder."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from diffusion.denoiser import Denoiser
from diffusion.grids import Grid
from diffusion.noise import image_generator
from diffusion.pictures import Fit
from diffusion.priors import Prior
from diffusion.transitions import Transition
from evaluation.callbacks import WriteOutput
from evaluation.data import Nothing, Pictures, collate
from evaluation.metrics import Metrics
from evaluation.output import OutputFolder
from evaluation.progress import ProgressReport
from evaluation.restoration import RestorationModule
from evaluation.runtime import Runtime
from operators.base import Operator
from operators.noise import MeasurementNoise
from solvers.base import Solver


@dataclass
class Restoration:
    """The parts of a run. `check` refuses what cannot work before anything is computed; `run` does the work.

    `input` are clean pictures, degraded and then restored; `measurement` are degraded ones, restored as they
    are; a solver that looks at no picture takes neither.
    """

    prior: Prior
    operator: Operator
    noise: MeasurementNoise
    solver: Solver
    grid: Grid
    transition: Transition
    fit: Fit
    runtime: Runtime
    metrics: Metrics
    output: OutputFolder
    input: str | list[str] | None
    measurement: str | list[str] | None
    seed: int = 0
    num_samples: int = 1
    batch_size: int = 8

    def __post_init__(self) -> None:
        for name in ("num_samples", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}; set {name}")

    def check(self) -> None:
        """Raises ValueError or OSError, in one line, for parts that do not go together and inputs that do not do."""
        self.output.check()
        self.levels = self.solver.levels(self.grid, self.prior.levels)
        self.image_shape = (self.prior.channels, *self.prior.size)
        blank = torch.zeros(1, *self.image_shape)
        self.operator.draw(blank, [image_generator(self.seed, "check")])
        self.data = self._data(tuple(self.operator(blank).shape[1:]))
        self.data.check()
        learned_variance = self.prior.probe()
        if self.transition.needs_variance and not learned_variance:
            raise ValueError(
                "transition=learned_range needs a prior with learned variance, and this one has none; use transition=fixed_small"
            )
        if self.data.kind == "truth":
            self.metrics.prepare()

    def _data(self, measurement_shape: tuple[int, int, int]) -> Dataset:
        if not self.solver.uses_measurement:
            if self.input is not None or self.measurement is not None:
                raise ValueError("this solver looks at no picture; leave out input= and measurement=, or choose another solver")
            return Nothing(self.num_samples)
        if self.measurement is None:
            return Pictures(self.input, "truth", *self._frame(self.image_shape))
        if self.input is not None:
            raise ValueError("input= is a clean picture and measurement= a degraded one; give one of them")
        if self.operator.random:
            raise ValueError(
                "this operator draws its mask or kernel at random, so it cannot be the one that made the measurement; "
                "use operator=inpaint_mask, operator=deblur_kernel or another without randomness"
            )
        return Pictures(self.measurement, "measured", *self._frame(measurement_shape))

    def _frame(self, shape: tuple[int, int, int]) -> tuple:
        return shape[0], shape[1:], self.fit, self.num_samples

    def run(self, config: str, title: str) -> None:
        """Restore everything; `config` is the text of config.yaml. Finished pictures survive an interruption."""
        loader = DataLoader(self.data, batch_size=self.batch_size, collate_fn=collate)
        report = ProgressReport(len(loader))
        self.prior.network = self.runtime.prepare(self.prior.network)
        module = RestorationModule(
            denoiser=Denoiser(self.prior, self.runtime.autocast),
            solver=self.solver,
            operator=self.operator,
            noise=self.noise,
            transition=self.transition,
            levels=self.levels,
            metrics=self.metrics,
            image_shape=self.image_shape,
            seed=self.seed,
            report=report,
        )
        trainer = _trainer(self.runtime.accelerator, WriteOutput(self.output))
        self.output.open(config)
        try:
            trainer.predict(module, loader, return_predictions=False)
        except torch.OutOfMemoryError as error:
            raise ValueError(f"out of memory at batch_size={self.batch_size}; lower it, or set runtime.precision=bf16") from error
        except SystemExit as error:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from error
        finally:
            report.close()
            self.output.finish(title, self.metrics.footnote)


def _trainer(accelerator: str, writer: pl.Callback) -> pl.Trainer:
    """A quiet Trainer that lets solvers differentiate."""
    for name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (".*does not have many workers.*", ".*LeafSpec.*"):
        warnings.filterwarnings("ignore", message=message)
    return pl.Trainer(
        accelerator=accelerator,
        devices=1,
        inference_mode=False,
        logger=False,
        callbacks=[writer],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
