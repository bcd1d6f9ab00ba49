"""Scripts in forks of a process that has imported everything: a start takes half a second instead of five."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["__main__", "diffusion_priors.conf.build", "diffusion_priors.evaluation.sweeps.leaderboard", "broken_networks", "frozen_modules"]
)


class Run:
    """`python SCRIPT OVERRIDES` in `folder`, in a process group of its own. `before` is called in the process, ahead of the script."""

    def __init__(
        self,
        folder: Path,
        *overrides: str,
        script: str = "evaluate.py",
        before: Callable[[], None] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.heard = tempfile.TemporaryDirectory()
        self.process = FORKS.Process(target=_run, args=(script, overrides, folder, self.heard.name, before, environment or {}))
        self.process.start()

    @property
    def running(self) -> bool:
        return self.process.is_alive()

    def send(self, number: int) -> None:
        """A signal, to the script's process alone."""
        if self.running:
            os.kill(self.process.pid, number)

    def kill(self) -> int:
        """kill -9 it with all it started → its exit code, −9 where it was still running."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:  # over, or not yet a group
            self.process.kill()
        return self.wait().returncode

    def wait(self, seconds: float = 120.0) -> subprocess.CompletedProcess:
        self.process.join(seconds)
        out, err = (Path(self.heard.name, name).read_text() if Path(self.heard.name, name).exists() else "" for name in ("out", "err"))
        if self.running:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(f"still running after {seconds} s: {out}{err}")
        self.heard.cleanup()
        return subprocess.CompletedProcess(self.process.name, self.process.exitcode, out, err)

    def wait_until(self, true: Callable[[], bool], seconds: float = 60.0) -> bool:
        """Whether it came to that while running."""
        deadline = time.monotonic() + seconds
        while self.running and time.monotonic() < deadline:
            if true():
                return True
            time.sleep(0.001)
        return False


def _run(
    script: str, overrides: tuple[str, ...], folder: Path, heard: str, before: Callable[[], None] | None, environment: dict[str, str]
) -> None:
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for name in [name for name in os.environ if name.startswith(("HYDRA", "WANDB"))]:
        del os.environ[name]  # of the test process, where it imported or ran these itself
    os.environ.update(
        {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "tests" / "support"), "TORCH_HOME": str(folder / "torch")} | environment
    )
    os.chdir(folder)
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(heard, name), os.O_WRONLY | os.O_CREAT), descriptor)
    sys.argv = [str(ROOT / script), *overrides]
    if before is not None:
        before()
    runpy.run_path(sys.argv[0], run_name="__main__")
