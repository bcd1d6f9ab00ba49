"""The end of a sweep: failed jobs, the leaderboard, and a table where one is configured. Hydra calls it wherever the jobs ran."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from diffusion_priors.runs.exit_codes import FAILED
from diffusion_priors.runs.files import write_whole
from diffusion_priors.runs.layout import ERROR, EXACT_POSTERIOR
from diffusion_priors.runs.printable import command_of, printable, show, without_home, without_secrets

PLAIN = re.compile(r"[\w\-./,=+~@%:\[\] ]+")
"""What a POSIX shell leaves as it is between double quotes."""


def compare_command(first: Path, second: Path) -> str:
    """The command that compares two runs, ready for a shell. Their folders need no quotes of Hydra: see conf/paths.py."""
    argument = f"compare=[{first},{second}]"
    quoted = f'"{argument}"' if PLAIN.fullmatch(argument) else shlex.quote(argument)
    return f"{command_of('evaluate')} {quoted}"


class Failures(Callback):
    """Exit code 1 where a job failed. The command line that Hydra keeps of a sweep loses the secrets in its addresses."""

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if config.hydra.mode == RunMode.MULTIRUN:
            mask_command(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        root = Path(config.hydra.sweep.dir)
        mask_command(root)
        failed = sorted(root.glob(f"*/{ERROR}"))
        if failed:
            print(
                f"error: {len(failed)} job{'s' if len(failed) > 1 else ''} of the sweep failed; their tracebacks: {root}/*/{ERROR}",
                file=sys.stderr,
            )
            sys.exit(FAILED)


def mask_command(root: Path) -> None:
    """Write multirun.yaml of a sweep again, if it holds secrets or the home. Hydra writes it before the first job."""
    path = root / "multirun.yaml"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    masked = without_home(without_secrets(text))
    if masked != text:
        write_whole(path, lambda stream: stream.write(masked.encode()))


class Leaderboard(Failures):
    """The leaderboard of the jobs in the sweep's folder, and its table."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            self.draw(config)
        except Exception as error:  # noqa: BLE001 - Hydra would turn it into a warning
            kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
            print(f"error: {kind}{printable(' '.join(str(error).split()))}", file=sys.stderr)
            sys.exit(FAILED)
        super().on_multirun_end(config, **kwargs)

    def draw(self, config: DictConfig) -> None:
        from diffusion_priors.conf.build import build
        from diffusion_priors.evaluation.sweeps.leaderboard import write_leaderboard

        root = Path(config.hydra.sweep.dir)
        if any(root.glob(f"*/{EXACT_POSTERIOR}")):
            from diffusion_priors.evaluation.exact.report import write_report

            show(f"\n{write_report(root)}")
            return
        board = write_leaderboard(root, config.objective)
        show(f"\n{board.text}")
        best = [row.job.folder for row in board.rows[:2]]
        if len(best) == 2:
            show(f"\nthe first two, image by image: {compare_command(*best)}")
        if config.get("table") is not None:
            show(f"\n{build(config.table).write(root, board.jobs)}")
