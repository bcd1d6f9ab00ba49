"""`dp.restore` against sample.py, and against itself in other ways to call it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from documentation import commands, fenced
from forks import ROOT, Run
from lazy import Lazy
from PIL import Image

import diffusion_priors as dp

broken_networks = Lazy("broken_networks")
FACES = sorted((ROOT / "examples" / "faces").glob("*.png"))[:2]
QUICK = ["grid.steps=3", "metrics.lpips=null", "trainer=cpu", "prior.size=[32,32]"]
NOT_COMPARED = {"seconds", "peak_memory_mib", "hashes"}
"""Keys of a record that hold times, or that only the scripts write."""


def by_script(folder: Path, *overrides: str, quick: Sequence[str] = QUICK) -> tuple[list[dict], dict[str, np.ndarray]]:
    """The records and the images of a run of sample.py."""
    done = Run(folder, "output_dir=run", *quick, *overrides, script="sample.py").wait(300.0)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (folder / "run" / "records.jsonl").read_text().splitlines()]
    return records, pixels(folder / "run")


def pixels(run: Path) -> dict[str, np.ndarray]:
    return {path.relative_to(run).as_posix(): np.asarray(Image.open(path)) for path in (run / "images").rglob("*.png")}


def assert_same_images(result: dp.Result, images: dict[str, np.ndarray], folder: Path) -> None:
    """All but those of the samples' mean and spread, which a run draws at its end."""
    saved = pixels(result.save(folder / "saved"))
    assert saved.keys() == {name for name in images if Path(name).stem not in ("mean", "std")}
    assert all(np.array_equal(image, images[name]) for name, image in saved.items())


def compared(records: list[dict]) -> list[dict]:
    return [{key: value for key, value in record.items() if key not in NOT_COMPARED} for record in records]


SAME = {
    "settings, and the sampler that the solver chooses": (
        ["solver=ddnm", "solver.travel_repeats=2", "operator=super_resolution", "noise_model.sigma=0.1", "grid=karras"],
        {
            "solver": lambda: dp.solver("ddnm", travel_repeats=2),
            "operator": "super_resolution",
            "noise_model": lambda: dp.noise_model("gaussian", sigma=0.1),
            "grid": "karras",
        },
    ),
    "a part inside a part, and a measurement that is no image": (
        ["operator=mri", "kspace_mask@operator.mask=random", "solver=daps", "inner@solver.inner=langevin", "images_per_call=1"],
        {
            "operator": lambda: dp.operator("mri", mask="random"),
            "solver": lambda: dp.solver("daps", inner="langevin"),
            "images_per_call": 1,
        },
    ),
}


@pytest.mark.script
@pytest.mark.parametrize(("overrides", "settings"), SAME.values(), ids=SAME)
def test_the_same_numbers_as_the_command_line(overrides, settings, tmp_path):
    """Every record and every pixel, from the same files: seeds, ids, masks, noise and defaults are the same."""
    records, images = by_script(tmp_path, f"input=[{FACES[0]},{FACES[1]}]", *overrides)
    parts = {key: value() if callable(value) else value for key, value in settings.items()}
    prior = dp.load_prior("faces64", size=[32, 32])
    result = dp.restore(prior, image=list(map(str, FACES)), steps=3, trainer="cpu", progress=False, **parts)
    assert compared(result.records) == compared(records)
    assert_same_images(result, images, tmp_path)


@pytest.mark.script
def test_the_command_and_the_code_of_the_page_give_the_same_numbers(tmp_path):
    """Those that docs/python.md has next to each other, in fewer steps."""
    (command,) = commands("docs/python.md")
    words = command.replace("grid.steps=50", "grid.steps=3").replace("examples/faces", str(FACES[0].parent)).split()[2:]
    records, images = by_script(tmp_path, *words, quick=["metrics.lpips=null"])
    names: dict = {"dp": dp}
    exec(fenced("docs/python.md", "python")[-1].replace("steps=50", "steps=3"), names)
    result = names["result"]
    assert compared(result.records) == compared(records) and len(records) == 2
    assert_same_images(result, images, tmp_path)


def test_progress_is_shown_over_the_tiles_of_a_step(monkeypatch, capsys):
    """As in a run of the commands. The clock goes on by a minute with each look at it, so that every tile is due."""
    monkeypatch.setattr("diffusion_priors.evaluation.restoration.progress.monotonic", count(step=60).__next__)
    small = dp.load_prior("custom", network=broken_networks.Shrink(), size=(8, 8), checkpoint=None)
    prior = dp.part("tile", "overlapping", image_size=(8, 20), overlap=2)(small)
    settings = {"image": np.zeros((2, 8, 20, 3), "uint8"), "operator": "identity", "solver": "diffpir", "steps": 2, "batch_size": 1}
    dp.restore(prior, **settings, trainer="cpu")
    tiles = [f"step {step}, tile {tile}/3" for step in (1, 2) for tile in (1, 2, 3)]
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "tile" in line] == 2 * tiles
    assert lines[3].startswith("batch 1/2, step 1/2, residual ")
    dp.restore(prior, **settings, trainer="cpu", progress=False)
    assert capsys.readouterr().err == ""
