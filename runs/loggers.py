"""Dashboards: where the values and images of a run go, in addition to its own folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from diffusion_priors.runs.layout import RunLayout


class Dashboard:
    """Makes Lightning's loggers of a run, publishes its summary, and ends it.

    Only the first process of a run makes loggers, so everything is logged once.
    """

    def __call__(self, folder: Path, config: dict, restart: bool = False) -> list[Logger]:
        """The loggers of the run in `folder`. `config` is its resolved configuration as plain values.

        A resumed run stays one run. With `restart` it is another run than the one that was in the folder before.
        """
        return []

    def publish(self, loggers: Sequence[Logger], folder: Path, summary: dict, records: Sequence[dict]) -> None:
        """Show the results of a run, once all its records exist."""
        for logger in loggers:
            logger.log_metrics(summary_values(summary), step=summary["records"])
            logger.finalize("success")

    def finish(self, code: int) -> None:
        """End the run with this exit code."""


class NoLogger(Dashboard):
    """No dashboard."""


class CSV(Dashboard):
    """csv/version_…/metrics.csv in the run's folder; each part of a resumed run has its own version."""

    def __call__(self, folder: Path, config: dict, restart: bool = False) -> list[Logger]:
        path = RunLayout(folder).csv
        if restart:
            shutil.rmtree(path, ignore_errors=True)
        return [CSVLogger(folder, name=path.name, flush_logs_every_n_steps=1)]


class TensorBoard(Dashboard):
    """Events in tensorboard/ in the run's folder. Show them with tensorboard --logdir FOLDER, of one run or of many.

    Raises ValueError where TensorBoard is not installed.
    """

    def __init__(self) -> None:
        if find_spec("tensorboard") is None:
            raise ValueError('logger=tensorboard needs TensorBoard; pip install -e ".[tensorboard]", or choose another logger')

    def __call__(self, folder: Path, config: dict, restart: bool = False) -> list[Logger]:
        path = RunLayout(folder).tensorboard
        if restart:
            shutil.rmtree(path, ignore_errors=True)
        logger = TensorBoardLogger(folder, name=path.name, version="", default_hp_metric=False)
        logger.log_hyperparams(config)
        return [logger]

    def publish(self, loggers: Sequence[Logger], folder: Path, summary: dict, records: Sequence[dict]) -> None:
        """The values of the summary next to the configuration, and figure.png."""
        path = RunLayout(folder).figure
        for logger in loggers:
            logger.log_hyperparams(logger.hparams, summary_values(summary), summary["records"])
            if path.is_file():
                with Image.open(path, formats=["PNG"]) as figure:
                    log_image([logger], "figure", figure, summary["records"])
            logger.finalize("success")


def summary_values(summary: dict) -> dict[str, float]:
    """The values in summary.json that exist, flat: single/psnr, single/psnr_se (standard error), cost/seconds, count/failed, …"""
    found = {f"count/{name}": summary[name] for name in ("images", "records", "failed")} | {"sigma_y": summary["sigma_y"]}
    groups = summary["statistics"] | {"cost": summary["cost"], "distribution": summary.get("distribution") or {}}
    calibration = summary.get("calibration") or {}
    coverage = {f"coverage_{level}": estimate for level, estimate in calibration.get("coverage", {}).items()}
    groups["calibration"] = coverage | {"correlation": calibration.get("correlation")}
    for group, values in groups.items():
        for name, value in values.items():
            if isinstance(value, dict):
                found |= {f"{group}/{name}": value["mean"], f"{group}/{name}_se": value["se"]}
            else:
                found[f"{group}/{name}"] = value
    return {name: value for name, value in found.items() if value is not None}


def log_image(loggers: Sequence[Logger], name: str, image: Image.Image, step: int) -> None:
    """Send an image to every logger that shows images. Lightning's loggers have no common method for it."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(name, [image], step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")
