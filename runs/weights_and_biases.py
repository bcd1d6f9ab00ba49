"""The dashboard of Weights & Biases. `wandb` is imported only where it is used: it is slow to import."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from netrc import NetrcParseError, netrc
from pathlib import Path
from secrets import token_hex
from typing import Literal
from urllib.parse import urlsplit

from PIL import Image
from pytorch_lightning.loggers import Logger, WandbLogger

from diffusion_priors.runs.files import write_whole
from diffusion_priors.runs.image_table import image_rows
from diffusion_priors.runs.layout import SUMMARY, RunLayout
from diffusion_priors.runs.loggers import Dashboard, summary_values
from diffusion_priors.runs.printable import without_secrets

FORMER_HOST = "api.wandb.ai"
"""Where keys were kept for the public server before it got another name; wandb still accepts them."""
KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
NETRC, MODE, DATA_FOLDER = "NETRC", "WANDB_MODE", "WANDB_DATA_DIR"
"""Environment variables of wandb."""
STEP = "trainer/global_step"
"""The key by which Lightning's logger orders what it logs."""


class Wandb(Dashboard):
    """Weights & Biases, its files in the run's folder. `mode` auto is online with an account's key and offline without.

    A resumed run keeps its id, in wandb/run_id, so that its parts are one run in the dashboard (`wandb sync --append` for
    offline ones). `job_type`, `tags` and `notes` label it. The table of images has at most `rows` rows, the first ones.
    `artifacts` keeps records, summary, configuration and figure as an artifact. Raises ValueError for negative rows and
    where no connection can be made.
    """

    def __init__(
        self,
        project: str = "diffusion-priors",
        name: str | None = None,
        group: str | None = None,
        entity: str | None = None,
        job_type: str | None = None,
        tags: tuple[str, ...] = (),
        notes: str | None = None,
        mode: Literal["auto", "online", "offline"] = "auto",
        rows: int = 64,
        artifacts: bool = False,
    ) -> None:
        if rows < 0:
            raise ValueError(f"logger.rows must be at least 0, got {rows}; set logger.rows")
        self.project, self.name, self.group, self.entity, self.mode = project, name, group, entity, mode
        self.labels = {"job_type": job_type, "tags": list(tags), "notes": notes}
        self.rows, self.artifacts = rows, artifacts

    def __call__(self, folder: Path, config: dict, restart: bool = False) -> list[Logger]:
        import wandb

        online = self.mode == "online" or (self.mode == "auto" and (MODE in os.environ or has_key()))
        logger = WandbLogger(
            project=self.project,
            name=self.name or folder.resolve().name,
            group=self.group,
            entity=self.entity,
            offline=not online,
            id=run_id(RunLayout(folder).wandb / "run_id", restart),
            save_dir=folder,
            config=config,
            **self.labels,
        )
        try:
            with arguments_without_secrets():
                _ = logger.experiment  # connects now, before anything is computed
        except wandb.errors.Error as error:
            raise ValueError(f"Weights & Biases: {error}; logger.mode=offline needs no connection") from error
        return [logger]

    def publish(self, loggers: Sequence[Logger], folder: Path, summary: dict, records: Sequence[dict]) -> None:
        """The values of the summary, the figure, the table of images, and the artifact where it is wanted."""
        import wandb

        layout = RunLayout(folder)
        for logger in loggers:
            run = logger.experiment
            with staging(layout.wandb):
                shown = {"figure": wandb.Image(str(layout.figure))} if layout.figure.is_file() else {}
                if self.rows and records:
                    shown["images"] = _table(image_rows(folder, records[: self.rows]))
                run.log(shown | {STEP: summary["records"]})
                run.summary.update(summary_values(summary))
                if self.artifacts:
                    run.log_artifact(_artifact(layout, summary, run.id))

    def finish(self, code: int) -> None:
        """Close the run, so that the next job of a sweep begins a run of its own."""
        import wandb

        if wandb.run is not None:
            wandb.finish(code)


def run_id(path: Path, restart: bool) -> str:
    """The id kept in the file `path`; a new one, kept there, where there is none or with `restart`."""
    if restart or not path.is_file():
        write_whole(path, lambda stream: stream.write(token_hex(8).encode()))
    return path.read_text()


@contextmanager
def arguments_without_secrets() -> Iterator[None]:
    """Let wandb, which keeps the command line, see it without the passwords in its addresses."""
    before = sys.argv
    sys.argv = [without_secrets(argument) for argument in before]
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def staging(folder: Path) -> Iterator[None]:
    """Let wandb copy the images of tables and the files of artifacts to `folder` before it sends them, not to the home."""
    before = os.environ.get(DATA_FOLDER)
    os.environ[DATA_FOLDER] = before or str(folder.resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ[DATA_FOLDER]


def _table(rows: Sequence[dict]):
    """Rows with the same columns → a wandb.Table that shows paths and images as images."""
    import wandb

    def cell(value):
        if isinstance(value, Path):
            return wandb.Image(str(value))
        return wandb.Image(value) if isinstance(value, Image.Image) else value

    return wandb.Table(columns=list(rows[0]), data=[[cell(value) for value in row.values()] for row in rows])


def _artifact(layout: RunLayout, summary: dict, name: str):
    """The run's files as a wandb.Artifact. summary.json is not written yet, so it comes from memory."""
    import wandb

    artifact = wandb.Artifact(f"evaluation-{name}", type="evaluation")
    for path in (layout.records, layout.config, layout.figure):
        if path.is_file():
            artifact.add_file(str(path))
    with artifact.new_file(SUMMARY) as stream:
        json.dump(summary, stream, indent=2, ensure_ascii=False)
    return artifact


def has_key() -> bool:
    """Whether this machine has a key for the server of Weights & Biases in use, which may be an own one.

    The key stands in the environment, or `wandb login` left it in the netrc file, there under the name of the server.
    """
    import wandb

    if any(os.environ.get(name) for name in KEYS):
        return True
    settings = wandb.Settings()
    usual = settings.base_url
    settings.update_from_system_settings()
    settings.update_from_env_vars(os.environ)
    servers = [urlsplit(settings.base_url).netloc] + ([FORMER_HOST] if settings.base_url == usual else [])
    try:
        logins = netrc(os.environ.get(NETRC))
    except (OSError, NetrcParseError):
        return False
    return any(logins.authenticators(server) is not None for server in servers)
