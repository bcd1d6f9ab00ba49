"""Folders of jobs as evaluate.py leaves them, made by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from diffusion_priors.evaluation.summary import summarise

METRICS = ("psnr", "ssim", "lpips")


def node(target: str, **arguments: Any) -> dict:
    return {"_target_": target, **arguments}


def base_config(**changes: Any) -> dict:
    """A resolved configuration of evaluate.py, `changes` at its top."""
    operator = node("diffusion_priors.operators.inpainting.InpaintBox", size=None, place=None)
    noise, solver = node("diffusion_priors.operators.noise_models.Gaussian", sigma=0.05), node("diffusion_priors.solvers.dps.DPS", zeta=1.0)
    machine = node("runs.trainer.Trainer", accelerator="cpu", devices=1, threads=2, precision="32")
    parts = {
        "operator": operator,
        "noise_model": noise,
        "solver": solver,
        "grid": node("diffusion_priors.diffusion.grids.Linspace", steps=250),
        "trainer": machine,
    }
    rest = {"seed": 0, "num_samples": 1, "batch_size": 8, "output_dir": "outputs/x", "overwrite": False, "table": None, "callbacks": {}}
    return parts | rest | changes


def base_choices(**changes: str) -> dict:
    return {"solver": "dps", "operator": "inpaint_box", "noise_model": "gaussian", "grid": "linspace", "trainer": "cpu"} | changes


def record(name: str, sample: int = 0, error: str | None = None, seconds: float = 1.0, y: str | None = "y", **scores: float | None) -> dict:
    found = dict.fromkeys(METRICS) if error else dict.fromkeys(METRICS) | scores
    measured = {"psnr_measurement": 15.0 if y else None, "ssim_measurement": 0.5 if y else None, "lpips_measurement": None}
    spent = {"residual": 0.05, "nfe_forward": 250, "nfe_vjp": 250, "seconds": seconds, "sigma_y": 0.05}
    last = {"measurement_hash": f"{y}-{name}" if y else None, "peak_memory_mib": 512.0, "error": error}
    return {"id": name, "sample": sample, "seed": 0} | found | spent | measured | last


def records_of(psnr: Sequence[float | None], lpips: Sequence[float | None] | None = None, **shared: Any) -> list[dict]:
    """A record per image face-0, face-1, …, one sample each."""
    lpips = [None] * len(psnr) if lpips is None else lpips
    return [record(f"face-{i}", psnr=a, ssim=0.5, lpips=b, **shared) for i, (a, b) in enumerate(zip(psnr, lpips, strict=True))]


def write_job(
    folder: Path,
    records: Sequence[dict] = (),
    config: dict | None = None,
    choices: dict | None = None,
    footnote: str | None = None,
    num_samples: int = 1,
    posterior: Sequence[dict] = (),
    finished: bool = True,
) -> Path:
    """config.yaml, records.jsonl and, where `finished`, summary.json."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"config": base_config() if config is None else config, "choices": base_choices() if choices is None else choices}
    (folder / "config.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    (folder / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    if finished:
        summary = summarise(folder.name, records, posterior, METRICS, num_samples) | {"footnote": footnote}
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def write_images(folder: Path, name: str, **colours: tuple[int, int, int]) -> None:
    """images/<name>/<key>.png of one colour each, 4 x 4; restoration_0 becomes restoration-0."""
    for key, colour in colours.items():
        path = folder / "images" / name / f"{key.replace('_', '-')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), colour, dtype=np.uint8)).save(path)
