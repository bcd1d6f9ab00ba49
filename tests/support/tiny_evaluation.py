"""evaluate.py with images and a prior so small that a run takes a second, and readers of what it writes."""

from __future__ import annotations

import json
import os
import subprocess
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from forks import Run
from PIL import Image
from torch import Tensor, nn

NETWORK = ["prior=custom", "prior.network._target_=tiny_evaluation.Convolution", "prior.checkpoint=null", "prior.size=[16,16]"]
TINY = [*NETWORK, "grid.steps=3", "metrics.lpips=null", "trainer=cpu"]
COSTS = ("seconds", "peak_memory_mib")
"""Values that differ between any two runs."""


class Convolution(nn.Module):
    """ε̂ = x_t + tanh(3 × 3 convolution of x_t) / 4: a pixel depends on its neighbours, and a rounding on the batch.

    Rests for `rest` seconds, so that there is something to interrupt. Fails where there is a file `broken`.
    """

    def __init__(self, rest: float = 0.0, broken: str | None = None) -> None:
        super().__init__()
        self.rest, self.broken = rest, broken
        self.convolution = nn.Conv2d(3, 3, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time.sleep(self.rest)
        if self.broken is not None and os.path.exists(self.broken):
            raise RuntimeError("the network is broken")
        return x + torch.tanh(self.convolution(x)) / 4


def draw_images(folder: Path, count: int, size: tuple[int, int] = (16, 16)) -> Path:
    """`folder` with face-00.png, face-01.png, …, of `size` (height, width)."""
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(count):
        small = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        small.resize(size[::-1], Image.Resampling.BICUBIC).save(folder / f"face-{i:02}.png")
    return folder


def evaluate(folder: Path, *overrides: str, code: int = 0, **how) -> subprocess.CompletedProcess:
    """Run evaluate.py with the tiny prior in `folder` and wait for its end."""
    swept = [one for one in overrides if one == "-m"]
    run = Run(folder, *swept, *TINY, *(one for one in overrides if one not in swept), **how)
    try:
        done = run.wait()
    finally:
        run.process.kill()
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def undisturbed(folder: Path, images: int, *line: str) -> Path:
    """`folder` with that many images and `run`, a finished run of one process."""
    draw_images(folder / "images", images)
    evaluate(folder, *line, "output_dir=run")
    return folder


def the_line(done: subprocess.CompletedProcess) -> str:
    """The only line that a refused run prints."""
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    return line


def records(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]


def results(run: Path) -> list[dict]:
    """The records in order, without costs."""
    return [{key: value for key, value in record.items() if key not in COSTS} for record in records(run)]


def summary(run: Path) -> dict:
    """summary.json without costs."""
    found = json.loads((run / "summary.json").read_text())
    for name in COSTS:
        del found["cost"][name]
    return found


def posterior(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "posterior.jsonl").read_text().splitlines()]


def images(run: Path) -> dict[str, bytes]:
    """images/, file by file."""
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in sorted(run.glob("images/*/*"))}


def pixels(path: Path) -> np.ndarray:
    """On [0, 1]."""
    return np.asarray(Image.open(path), dtype=np.float64) / 255


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((image - truth) ** 2)))


def assert_same(run: Path, reference: Path) -> None:
    """Both runs have the same values, images and files."""
    assert results(run) == results(reference)
    assert summary(run) == summary(reference)
    assert images(run) == images(reference)
    assert {path.name for path in run.iterdir()} == {path.name for path in reference.iterdir()}
    if (reference / "posterior.jsonl").exists():
        assert sorted(posterior(run), key=lambda one: one["id"]) == posterior(reference)


def assert_whole(run: Path) -> int:
    """An interrupted run's folder has no partial file, and every record has its images → the number of records."""
    assert not [path for path in run.rglob("*") if path.name.startswith(".")]
    kept = records(run)
    for record in kept:
        for name in ("truth", "measurement", f"restoration-{record['sample']}"):
            assert pixels(run / "images" / record["id"] / f"{name}.png").shape == (16, 16, 3)
    return len(kept)


def ranks(folder: Path, world: int, *overrides: str) -> list[Run]:
    """`world` processes as torchrun starts them, but without its ten seconds."""
    port = free_port()
    shared = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    line = [*TINY, "trainer=ddp", "trainer.accelerator=cpu", f"trainer.devices={world}", *overrides]
    started = []
    for rank in range(world):
        own = shared | {"RANK": rank, "LOCAL_RANK": rank, "TORCHELASTIC_RUN_ID": "none"}
        variables = {key: str(value) for key, value in own.items()}
        started.append(Run(folder, *line, environment=variables, before=partial(be, rank)))
    return started


def be(rank: int) -> None:
    """Set the rank, which Lightning reads from the environment on import; here it was imported earlier."""
    from pytorch_lightning.utilities import rank_zero_only

    rank_zero_only.rank = rank


def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
