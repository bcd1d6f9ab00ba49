"""One row of the table of bad inputs, and what holds for all of them."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from forks import Run
from PIL import Image
from tiny_evaluation import NETWORK, TINY, draw_images
from written_run import FACES

LONGEST_LINE = 600
"""In characters. A longer error would fill a small terminal."""

UNET = ["num_channels=8", "channel_mult=[1,2]", "attention_resolutions=[]", "image_size=16", "num_head_channels=8"]
VALIDATION = ["validation.denoise=2", "validation.samples=0", "validation.restore=0", "validation.grid.steps=2"]
TRAINING = ["prior.size=[16,16]", *(f"network.{flag}" for flag in UNET), *VALIDATION, "batch_size=4", "steps=2"]

BASE = {
    "sample.py": [*TINY, "input=face.png", "output_dir=out"],
    "evaluate.py": [*TINY, "data.root=images", "output_dir=out"],
    "train.py": [*TRAINING, "data.root=images", "data.cache=cache", "output_dir=out"],
}
"""A cheap command of each script, which works."""

OF_THE_PRIOR = {key.partition("=")[0] for key in (*NETWORK, *TRAINING) if key.startswith(("prior", "network"))}


@dataclass(frozen=True)
class Bad:
    """`script` with `overrides` after its cheap command is refused with a line that contains the regular expression `says`.

    `prepare` writes what the row needs into the working folder. The folder holds `face.png` (64 x 64), `images` with four images of
    20 x 24 pixels, and with `run=True` also `run`, the finished run of evaluate.py over `images` with two samples per image. An
    override replaces the same key of the cheap command; prior=… replaces its whole prior; `alone=True` leaves the command out.
    """

    script: str
    what: str
    overrides: Sequence[str]
    says: str
    prepare: Callable[[Path], None] | None = None
    run: bool = False
    alone: bool = False

    @property
    def command(self) -> list[str]:
        if self.alone:
            return list(self.overrides)
        own = {key_of(override) for override in self.overrides}
        replaced = own | (OF_THE_PRIOR if own & {"prior", "network"} else set())
        return [one for one in BASE[self.script] if key_of(one) not in replaced] + list(self.overrides)


def key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+")


def write_images(folder: Path) -> None:
    with Image.open(FACES[0]) as face:
        face.convert("RGB").resize((64, 64)).save(folder / "face.png")
    draw_images(folder / "images", 4, (20, 24))


def grey(path: Path, *shape: int, value: int = 128) -> None:
    Image.fromarray(np.full(shape, value, dtype=np.uint8)).save(path)


def tree(folder: Path) -> dict[str, bytes | int]:
    """Every path below `folder`, with its content; the kind of the path where it is no regular file. Caches do not count."""
    found: dict[str, bytes | int] = {}
    for where, folders, files in os.walk(os.fsencode(folder)):
        folders[:] = [name for name in folders if name != b"cache"]
        for name in (*folders, *files):
            path = os.path.join(where, name)
            mode = os.lstat(path).st_mode
            key = os.fsdecode(os.path.relpath(path, os.fsencode(folder)))
            found[key] = Path(os.fsdecode(path)).read_bytes() if stat.S_ISREG(mode) else stat.S_IFMT(mode)
    return found


def assert_refused(bad: Bad, folder: Path, finished: Callable[[], Path]) -> None:
    """One line on standard error that says what is wrong, exit code 2, and no file written, changed or deleted."""
    write_images(folder)
    if bad.run:
        shutil.copytree(finished(), folder / "run")
    if bad.prepare is not None:
        bad.prepare(folder)
    before = tree(folder)
    done = Run(folder, *bad.command, script=bad.script).wait()
    assert "Traceback" not in done.stderr and done.returncode == 2, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    assert lines[0].isprintable() and len(lines[0]) <= LONGEST_LINE, done.stderr
    assert re.search(bad.says, lines[0]), f"{lines[0]!r} does not say {bad.says!r}"
    after = tree(folder)
    assert after.keys() == before.keys(), f"left behind: {after.keys() ^ before.keys()}"
    assert after == before
