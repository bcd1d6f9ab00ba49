"""The command lines of docs/cluster.md with a tiny prior in place of a real one, and what they leave behind."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 300.0
IMAGES = 12
TINY = ["prior=custom", "prior.network._target_=unhurried_network.Unhurried", "prior.checkpoint=null", "prior.size=[16,16]"]
SLOW = [*TINY, "metrics.lpips=null", "grid.steps=20", "batch_size=1", "trainer.accelerator=cpu"]
"""Five seconds of rest in twelve equal pieces, to be interrupted between them."""

NAMES = {
    "data.root=FOLDER": shlex.join(["data.root=images", *SLOW]),
    " trainer=gpu": " trainer=cpu",
    "PARTITION": "tests",
    "=RUN": "=run",
    " evaluate.py": f" {ROOT}/evaluate.py",
    "torchrun ": "python -m torch.distributed.run --standalone ",
}
"""What a documented line leaves open, and what no test machine has."""

BLOCKS = {
    "install": "python -m pip install",
    "sweep": "python evaluate.py -m data.root=FOLDER solver=dps,sdedit hydra/launcher=slurm hydra.launcher.partition",
    "sweep on GPUs": "python evaluate.py -m data.root=FOLDER solver=dps,sdedit trainer=gpu hydra/launcher=slurm_gpu",
    "sweep of ranks": "python evaluate.py -m data.root=FOLDER solver=dps,sdedit trainer=ddp trainer.devices=2 hydra/launcher=slurm",
    "script": "#!/bin/bash",
    "submission": "sbatch",
    "srun": "srun",
    "torchrun": "torchrun",
    "without a cluster": "python evaluate.py -m data.root=FOLDER solver=dps,sdedit hydra/launcher=processes",
}
"""How each block of commands of docs/cluster.md begins. Each is run by a test that asks for it by its name here."""


def blocks(page: str) -> list[str]:
    """The fenced blocks of a page of docs/."""
    return re.findall(r"^```\n(.*?)^```$", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def documented(name: str) -> str:
    """One block of docs/cluster.md."""
    (found,) = (block for block in blocks("cluster.md") if block.startswith(BLOCKS[name]))
    return found.strip()


def adapted(text: str) -> str:
    for name, value in NAMES.items():
        text = text.replace(name, value)
    return text


def environment(folder: Path) -> dict[str, str]:
    """Of a user who has the project installed."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HYDRA", "WANDB", "SLURM", "SUBMITIT"))}
    own = {"PATH": f"{Path(sys.executable).parent}:{kept['PATH']}", "PYTHONPATH": f"{ROOT / 'tests' / 'support'}:{ROOT}"}
    return kept | own | {"HOME": str(folder), "TORCH_HOME": str(folder / "torch"), "OMP_NUM_THREADS": "1", "WANDB_SILENT": "true"}


def draw_images(folder: Path) -> None:
    """`IMAGES` of them in `folder`/images."""
    generator = np.random.default_rng(0)
    (folder / "images").mkdir()
    for i in range(IMAGES):
        small = Image.fromarray(generator.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        small.resize((20, 20), Image.Resampling.BICUBIC).save(folder / "images" / f"{i:02}.png")


def launch(text: str, folder: Path, **extra: str) -> subprocess.Popen:
    """Start a documented line in a shell, in `folder`."""
    return subprocess.Popen(
        adapted(text), shell=True, cwd=folder, env=environment(folder) | extra, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen, code: int = 0) -> str:
    """What it printed."""
    try:
        printed, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == code, printed
    return printed


def wait_for(condition: Callable[[], object], printed: Callable[[], str]) -> None:
    """Wait until `condition()`. Raises AssertionError with `printed()` where that takes too long."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, printed()
        time.sleep(0.02)


def recorded(run: Path) -> set[str]:
    """The whole lines on record in a run's folder at the moment, of all its processes."""
    return {line for path in run.glob("records*.jsonl") for line in path.read_text().split("\n")[:-1]}


def results(run: Path) -> list[dict]:
    """The records of a finished run without what is a cost; none is missing and none there twice."""
    records = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    assert [record["id"] for record in records] == [f"{i:02}" for i in range(IMAGES)]
    assert json.loads((run / "summary.json").read_text())["complete"]
    assert not list(run.glob("records.*.jsonl"))
    return [{key: value for key, value in record.items() if key not in ("seconds", "peak_memory_mib")} for record in records]


def assert_same_sweep(sweep: Path, reference: Path) -> None:
    """Both jobs of the sweep, with the results of the reference."""
    jobs = sorted(path.name for path in reference.iterdir() if (path / "records.jsonl").exists())
    assert len(jobs) == 2
    for job in jobs:
        assert results(sweep / job) == results(reference / job)


def of(solver: str, reference: Path) -> Path:
    """The folder of the reference's job with this solver."""
    (found,) = (path.parent for path in reference.glob("*/config.yaml") if f"solver: {solver}\n" in path.read_text())
    return found
