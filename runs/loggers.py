"""Dashboards: where a run's figures and images go besides its own folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from netrc import NetrcParseError, netrc
from pathlib import Path
from secrets import token_hex
from typing import Literal

import numpy as np
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from diffusion_priors.runs.files import write_whole
from diffusion_priors.runs.image_table import image_rows
from diffusion_priors.runs.layout import CONFIG, FIGURE, RECORDS, SUMMARY

ARTIFACT_FILES = (RECORDS, CONFIG, FIGURE)
"""What goes into an evaluation's artifact; summary.json, which is not written yet, comes from memory."""


class Dashboard:
    """Lightning's loggers of a run, what they are shown when an evaluation is over, and their end.

    Only a run's first process makes loggers: everything is logged once.
    """

    def __call__(self, folder: Path, config: dict, anew: bool = False) -> list[Logger]:
        """The loggers of the run in `folder`, whose resolved configuration, plain values, is `config`.

        A run that is gone on with stays one run; with `anew` it is another than the one that was in the folder before.
        """
        return []

    def publish(self, loggers: Sequence[Logger], folder: Path, summary: dict, records: Sequence[dict]) -> None:
        """What an evaluation came to, once all its records are there."""
        for logger in loggers:
            logger.log_metrics(figures(summary), step=summary["records"])
            logger.finalize("success")

    def finish(self, code: int) -> None:
        """The run ends with this exit code."""


class NoLogger(Dashboard):
    """Nowhere else."""


class CSV(Dashboard):
    """csv/version_…/metrics.csv in the run's folder; each part of a run that was gone on with has a version of its own."""

    def __call__(self, folder: Path, config: dict, anew: bool = False) -> list[Logger]:
        if anew:
            shutil.rmtree(folder / "csv", ignore_errors=True)
        return [CSVLogger(folder, name="csv", flush_logs_every_n_steps=1)]


class TensorBoard(Dashboard):
    """Events in tensorboard/ in the run's folder: tensorboard --logdir FOLDER, or a folder of runs.

    Raises ValueError where TensorBoard is not installed.
    """

    def __init__(self) -> None:
        if find_spec("tensorboard") is None:
            raise ValueError('logger=tensorboard needs TensorBoard; pip install -e ".[tensorboard]", or choose another logger')

    def __call__(self, folder: Path, config: dict, anew: bool = False) -> list[Logger]:
        if anew:
            shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        logger = TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)
        logger.log_hyperparams(config)
        return [logger]

    def publish(self, loggers: Sequence[Logger], folder: Path, summary: dict, records: Sequence[dict]) -> None:
        """The summary's figures beside the configuration, and the figure."""
        for logger in loggers:
            logger.log_hyperparams(logger.hparams, figures(summary), summary["records"])
            if (folder / FIGURE).is_file():
                with Image.open(folder / FIGURE) as figure:
                    log_image([logger], "figure", figure, summary["records"])
            logger.finalize("success")


class Wandb(Dashboard):
    """Weights & Biases, its files in the run's folder. `mode` auto is online with an account's key and offline without.

    A run that is gone on with keeps its id, in wandb/run_id, so that its parts are one in the dashboard (`wandb sync
    --append` for offline ones). An evaluation's table of images has at most `rows` rows, the first ones; `artifacts`
    keeps its records, summary, configuration and figure as an artifact. Raises ValueError for negative rows and where
    no connection can be made.
    """

    def __init__(
        self,
        project: str = "diffusion-priors",
        name: str | None = None,
        group: str | None = None,
        entity: str | None = None,
        mode: Literal["auto", "online", "offline"] = "auto",
        rows: int = 64,
        artifacts: bool = False,
    ) -> None:
        if rows < 0:
            raise ValueError(f"logger.rows must be at least 0, got {rows}; set logger.rows")
        self.project, self.name, self.group, self.entity, self.mode = project, name, group, entity, mode
        self.rows, self.artifacts = rows, artifacts

    def __call__(self, folder: Path, config: dict, anew: bool = False) -> list[Logger]:
        import wandb  # slow to import, and sample.py comes by here too

        online = self.mode == "online" or (self.mode == "auto" and ("WANDB_MODE" in os.environ or has_key()))
        logger = WandbLogger(
            project=self.project,
            name=self.name or folder.resolve().name,
            group=self.group,
            entity=self.entity,
            offline=not online,
            id=run_id(folder / "wandb" / "run_id", anew),
            save_dir=folder,
            config=config,
        )
        try:
            _ = logger.experiment  # connects now, before anything is computed
        except wandb.errors.Error as error:
            raise ValueError(f"Weights & Biases: {error}; logger.mode=offline needs no connection") from error
        return [logger]

    def publish(self, loggers: Sequence[Logger], folder: Path, summary: dict, records: Sequence[dict]) -> None:
        """The summary's figures, the figure, the table of images, and the artifact where wanted."""
        import wandb

        for logger in loggers:
            run = logger.experiment
            with staging(folder / "wandb"):
                shown = {"figure": wandb.Image(str(folder / FIGURE))} if (folder / FIGURE).is_file() else {}
                if self.rows and records:
                    shown["images"] = _table(image_rows(folder, records[: self.rows]))
                run.log(shown | {"trainer/global_step": summary["records"]})
                run.summary.update(figures(summary))
                if self.artifacts:
                    run.log_artifact(_artifact(folder, summary, run.id))

    def finish(self, code: int) -> None:
        """Close the run, so that a sweep's next job begins one of its own."""
        import wandb

        if wandb.run is not None:
            wandb.finish(code)


def figures(summary: dict) -> dict[str, float]:
    """summary.json's figures that have a value, flat: single/psnr, single/psnr_se (standard error), cost/seconds, count/failed, …"""
    found = {f"count/{name}": summary[name] for name in ("images", "records", "failed")} | {"sigma_y": summary["sigma_y"]}
    groups = summary["statistics"] | {"cost": summary["cost"], "distribution": summary.get("distribution") or {}}
    calibration = summary.get("calibration") or {}
    covered = {f"coverage_{level}": found for level, found in calibration.get("coverage", {}).items()}
    groups["calibration"] = covered | {"correlation": calibration.get("correlation")}
    for group, values in groups.items():
        for name, value in values.items():
            if isinstance(value, dict):
                found |= {f"{group}/{name}": value["mean"], f"{group}/{name}_se": value["se"]}
            else:
                found[f"{group}/{name}"] = value
    return {name: value for name, value in found.items() if value is not None}


def log_image(loggers: Sequence[Logger], name: str, image: Image.Image, step: int) -> None:
    """An image to every logger that shows images."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(name, [image], step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")


def run_id(path: Path, anew: bool) -> str:
    """The id kept in the file `path`, made and kept there where there is none or with `anew`."""
    if anew or not path.is_file():
        write_whole(path, lambda stream: stream.write(token_hex(8).encode()))
    return path.read_text()


@contextmanager
def staging(folder: Path) -> Iterator[None]:
    """W&B copies the images of tables and the files of artifacts to where it will send them from: not the home, but `folder`."""
    name = "WANDB_DATA_DIR"
    before = os.environ.get(name)
    os.environ[name] = before or str(folder.resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


def _table(rows: Sequence[dict]):
    """Rows alike → a wandb.Table, paths and images in it as images."""
    import wandb

    def cell(value):
        if isinstance(value, Path):
            return wandb.Image(str(value))
        return wandb.Image(value) if isinstance(value, Image.Image) else value

    return wandb.Table(columns=list(rows[0]), data=[[cell(value) for value in row.values()] for row in rows])


def _artifact(folder: Path, summary: dict, name: str):
    """The evaluation's files as a wandb.Artifact."""
    import wandb

    artifact = wandb.Artifact(f"evaluation-{name}", type="evaluation")
    for file in ARTIFACT_FILES:
        if (folder / file).is_file():
            artifact.add_file(str(folder / file))
    with artifact.new_file(SUMMARY) as stream:
        json.dump(summary, stream, indent=2, ensure_ascii=False)
    return artifact


def has_key() -> bool:
    """Whether this machine has a key for Weights & Biases: WANDB_API_KEY, or one that `wandb login` left."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc().authenticators("api.wandb.ai") is not None
    except (OSError, NetrcParseError):
        return False
