"""The mean of an image's samples, with its scores, and the samples' standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import torch

from diffusion_priors.evaluation.metrics.per_image import Metrics
from diffusion_priors.images.io import read_as_is, save_image
from diffusion_priors.runs.layout import WHITE


def posterior_record(root: Path, records: Sequence[dict], metrics: Metrics) -> dict:
    """Read the restorations of one image (those of `records` that did not fail), write mean.png and std.png → a record.

    The mean is that of the saved 8-bit images. `deviation` is the samples' standard deviation (with n − 1), averaged over
    pixels and channels, on [0, 1] images. A missing value is None.
    """
    folder = root / "images" / records[0]["id"]
    paths = [folder / f"restoration-{record['sample']}.png" for record in records if record["error"] is None]
    found = {"id": records[0]["id"], "samples": len(paths)}
    if len(paths) < 2:
        return found | dict.fromkeys((*metrics.names, "deviation"))
    samples = torch.stack([read_as_is(path) for path in paths])
    mean, deviation = samples.mean(0), samples.std(0) / 2.0
    save_image(folder / "mean.png", mean)
    save_image(folder / "std.png", 2.0 * deviation.mean(0, keepdim=True) / WHITE - 1.0)
    truth = folder / "truth.png"
    scores = {name: [None] for name in metrics.names} if not truth.exists() else metrics(mean[None], read_as_is(truth)[None])
    kept = {name: value if value is not None and isfinite(value) else None for name, (value,) in scores.items()}
    return found | kept | {"deviation": deviation.mean().item()}
