"""The commands and listings of the documentation, and the folder that its placeholders stand for."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from forks import ROOT, Run
from PIL import Image

STARTS = {
    "python": [sys.executable],
    "pytest": [sys.executable, "-m", "pytest"],
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone"],
}
"""How the first word of a documented command is started."""

SCRIPTS = ("sample.py", "evaluate.py", "train.py")


def fenced(page: str, language: str = "") -> list[str]:
    """The fenced blocks of a page in one language; commands have none."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [block for found, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) if found == language]


def commands(page: str) -> list[str]:
    """The commands of a page, in order: without comments, continued lines joined, `a && b` as two. Shell scripts are left out."""
    blocks = [block for block in fenced(page) if not block.startswith("#!")]
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.join(shlex.split(part, comments=True)) for line in lines for part in line.split("&&") if part.strip()]


def inline_commands(page: str) -> list[str]:
    """The `python FILE ...` commands inside the text of a page."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`(python [\w/]+\.py[^`]*)`", text)


def listings(page: str) -> dict[str, str]:
    """path → content of the listings of a page. The first line of a listing is a comment with its path."""
    blocks = fenced(page, "python") + fenced(page, "yaml")
    named = ((re.match(r"# (\S+\.(?:py|yaml))\n", block), block) for block in blocks)
    return {found[1]: block for found, block in named if found}


def run(command: str, folder: Path, extra: Sequence[str] = ()) -> subprocess.CompletedProcess:
    """A documented command with `extra` arguments, in `folder`: in a fork, or as the command that it is where it starts processes."""
    first, *words = shlex.split(command)
    if first == "python" and words[0].startswith((*SCRIPTS, "benchmarks/")) and "ddp" not in command and "launcher" not in command:
        return Run(folder, *words[1:], *extra, script=words[0], before=import_from_here).wait(600.0)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HYDRA", "WANDB"))}
    environment |= {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "tests" / "support", folder, ROOT))),
        "TORCH_HOME": str(folder / "torch"),
    }
    place = [str(ROOT / word) if word.endswith(".py") and (ROOT / word).is_file() else word for word in words]
    return subprocess.run(
        [*STARTS[first], *place, *extra], cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def import_from_here() -> None:
    """PYTHONPATH=. for a script in a fork."""
    sys.path.insert(0, os.getcwd())


def run_all(chosen: Sequence[str], folder: Path, extra) -> None:
    """Run commands in order, each with the arguments `extra(command)`: later commands need what earlier ones left."""
    for command in chosen:
        done = run(command, folder, extra(command))
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip() or "examples/" in command, command


def draw_faces(folder: Path, size: int, *places: str) -> None:
    """The four bundled faces, reduced, in each of the `places`."""
    for source in sorted((ROOT / "examples" / "faces").glob("*.png")):
        small = Image.open(source).convert("RGB").resize((size, size))
        for place in places:
            (folder / place).mkdir(exist_ok=True)
            small.save(folder / place / source.name)


def write_scans(folder: Path, size: int) -> None:
    """What a scanner measured of a grey image, with its columns, coil maps and angles, under the names of the documentation."""
    rng = np.random.default_rng(0)
    coils = rng.normal(size=(2, size, size)) + 1j * rng.normal(size=(2, size, size))
    (folder / "scans").mkdir()
    files = {"scan": coils[0], "kspace": coils[0], "scans/first": coils, "maps": coils / np.abs(coils).max()}
    files |= {"columns": np.arange(size) % 3 == 0, "mask": np.arange(size) % 3 == 0, "angles": np.arange(0.0, 180.0, 30.0)}
    for name, array in files.items():
        np.save(folder / f"{name}.npy", array)


def write_user_package(folder: Path) -> None:
    """package/module.py, which the documentation imports a network and a callback from."""
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").touch()
    (folder / "package" / "module.py").write_text(
        "import torch\n"
        "from pytorch_lightning.callbacks import Timer as MyCallback\n\n\n"
        "class Network(torch.nn.Module):\n"
        "    def __init__(self, width):\n"
        "        super().__init__()\n"
        "        self.gain = torch.nn.Parameter(torch.ones(width))\n\n"
        "    def forward(self, x, t):\n"
        "        return self.gain.mean() * x\n"
    )
