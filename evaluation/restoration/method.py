"""The parts of any restoration run, put together."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.grids import Grid
from diffusion_priors.diffusion.image_random import image_generator
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.transitions import Transition
from diffusion_priors.evaluation.metrics.per_image import Metrics
from diffusion_priors.evaluation.restoration.module import Report, RestorationModule
from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.noise_models import NoiseModel
from diffusion_priors.runs.trainer import TrainerSettings
from diffusion_priors.solvers.base import Solver


@dataclass(kw_only=True)
class Parts:
    """What an image's result depends on: `prior`, `operator`, `noise_model`, `solver`, `grid`, `transition` and `seed`.

    `num_samples` restorations an image are computed by `trainer`, `batch_size` at once, and scored by `metrics`.
    `measurement_spec` describes operator and noise, as plain values.
    """

    prior: Prior
    operator: Operator
    noise_model: NoiseModel
    solver: Solver
    grid: Grid
    transition: Transition
    trainer: TrainerSettings
    metrics: Metrics
    seed: int = 0
    num_samples: int = 1
    batch_size: int = 8
    measurement_spec: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("num_samples", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}; set {name}")
        self.image_shape = (self.prior.channels, *self.prior.size)

    @property
    def problem_key(self) -> str:
        """What stands for operator and noise in the records' measurement_hash."""
        return json.dumps(self.measurement_spec, sort_keys=True)

    def settle(self) -> None:
        """Find the levels and the measurement's shape (C', H', W'). Raises ValueError for parts that do not go together."""
        self.levels = self.solver.levels(self.grid, self.prior.levels)
        blank = torch.zeros(1, *self.image_shape)
        self.operator.draw(blank, [image_generator(self.seed, "check")])
        self.measurement_shape = tuple(self.operator(blank).shape[1:])
        self.transition.check(self.prior.probe())

    def module(self, report: Report | None = None, measurement_seed: int | None = None) -> RestorationModule:
        self.trainer.prepare(self.prior.network)
        return RestorationModule(
            denoiser=Denoiser(self.prior, self.trainer.autocast),
            solver=self.solver,
            operator=self.operator,
            noise_model=self.noise_model,
            transition=self.transition,
            levels=self.levels,
            metrics=self.metrics,
            image_shape=self.image_shape,
            seed=self.seed,
            measurement_seed=measurement_seed,
            problem_key=self.problem_key,
            report=report,
        )

    def predict(self, trainer: pl.Trainer, module: RestorationModule, loader: DataLoader) -> None:
        """Restore every batch. Raises ValueError where the machine cannot, KeyboardInterrupt for Ctrl-C."""
        try:
            trainer.predict(module, loader, return_predictions=False)
        except torch.OutOfMemoryError as error:
            raise ValueError(f"out of memory at batch_size={self.batch_size}; lower it, or set trainer.precision=bf16") from error
        except MisconfigurationException as error:  # what Lightning will not do on this machine
            raise ValueError(f"{str(error).splitlines()[0]}; choose another trainer") from error
        except SystemExit as error:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from error
