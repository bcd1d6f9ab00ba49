"""Every command line of docs/evaluation.md and docs/sweeps.md, run as it stands there with a tiny prior in place of a real one."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from forks import ROOT, Run
from PIL import Image

TINY = [
    *("prior=custom", "prior.network._target_=broken_networks.Shrink", "prior.checkpoint=null", "prior.size=[16,16]"),
    *("metrics.lpips=null", "trainer.accelerator=cpu", "grid.steps=4"),
]
NAMES = {
    "FOLDER": "images",
    "package.module.MyCallback": "pytorch_lightning.callbacks.Timer",
    "n_trials=20": "n_trials=2",
}
"""What the lines leave open, and how long they would take."""


def lines(page: str) -> list[str]:
    """The commands of a page's fenced blocks."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [line for block in re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) for line in block.splitlines() if line]


def adapted(line: str) -> list[str]:
    for name, value in NAMES.items():
        line = re.sub(rf"\b{re.escape(name)}\b", value, line)
    return [*shlex.split(line), *(["metrics.lpips=null"] if " compare=" in line or " samples=" in line else TINY)]


def run(line: str, folder: Path) -> subprocess.CompletedProcess:
    """A line in a fork; one that starts processes of its own, as the command it is."""
    words = adapted(line)
    if "ddp" not in line and "launcher" not in line:
        assert words[:2] == ["python", "evaluate.py"], line
        return Run(folder, *words[2:]).wait()
    start = {"python": [sys.executable], "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone"]}[words[0]]
    command = [*start, *(str(ROOT / word) if word == "evaluate.py" else word for word in words[1:])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "tests" / "support")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


@pytest.fixture
def folder(tmp_path):
    """Four images, and the folders that the pages take for granted."""
    for source in sorted((ROOT / "examples" / "faces").glob("*.png")):
        small = Image.open(source).convert("RGB").resize((16, 16))
        for place in ("images", "RESTORED"):
            (tmp_path / place).mkdir(exist_ok=True)
            small.save(tmp_path / place / source.name)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", ["evaluation.md", "sweeps.md"])
def test_every_line_of_a_page_does_what_it_says(page, folder):
    """In order, in one folder: later lines stand on what earlier ones left."""
    found = lines(page)
    assert len(found) >= 10
    for name in ("RUN1", "RUN2"):
        Run(folder, "data.root=images", f"output_dir={name}", f"seed={name[-1]}", *TINY).wait()
    for line in found:
        done = run(line, folder)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip(), line
    left = {path.name if path.suffix == ".tex" else path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
    wanted = {
        "evaluation.md": {"MEASUREMENTS/measurements.json"},
        "sweeps.md": {"SWEEP/leaderboard.html", "table1_denoising.tex", "table2_inpainting.tex", "table3_deconvolution.tex"},
    }
    assert wanted[page] <= left
