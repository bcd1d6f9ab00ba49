"""`dp.restore` against sample.py, and against itself in other ways to call it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from forks import ROOT, Run
from PIL import Image

import diffusion_priors as dp

FACES = sorted((ROOT / "examples" / "faces").glob("*.png"))[:2]
QUICK = ["grid.steps=3", "metrics.lpips=null", "trainer=cpu", "prior.size=[32,32]"]
NOT_COMPARED = {"seconds", "peak_memory_mib", "hashes"}
"""Keys of a record that hold times, or that only the scripts write."""


def by_script(folder: Path, *overrides: str) -> tuple[list[dict], dict[str, np.ndarray]]:
    """The records and the images of a run of sample.py."""
    done = Run(folder, "output_dir=run", *QUICK, *overrides, script="sample.py").wait(300.0)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (folder / "run" / "records.jsonl").read_text().splitlines()]
    return records, pixels(folder / "run")


def pixels(run: Path) -> dict[str, np.ndarray]:
    return {path.relative_to(run).as_posix(): np.asarray(Image.open(path)) for path in (run / "images").rglob("*.png")}


def compared(records: list[dict]) -> list[dict]:
    return [{key: value for key, value in record.items() if key not in NOT_COMPARED} for record in records]


SAME = {
    "a solver and an operator by name": (
        ["num_samples=2", "seed=3"],
        {"operator": "inpaint_box", "num_samples": 2, "seed": 3},
    ),
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
    saved = pixels(result.save(tmp_path / "saved"))
    assert saved.keys() == {name for name in images if Path(name).stem not in ("mean", "std")}
    assert all(np.array_equal(image, images[name]) for name, image in saved.items())
