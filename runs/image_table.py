"""The records of a run with their images, one row each: the table that dashboards show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffusion_priors.runs.layout import MEASUREMENT, TRUTH, WHITE, RunLayout, restoration
from diffusion_priors.runs.reading.png import read_png


def image_rows(folder: Path, records: Sequence[dict]) -> list[dict[str, Any]]:
    """Rows with the same columns: id, sample, truth, measurement, restoration, error, then the other values of a record.

    The images are paths, and `error` is the image of |restoration − truth|; each is None where it does not exist. The
    message of a restoration that failed is `failure`. Values that the solver reports are info/<name>.
    """
    rows, layout = [], RunLayout(folder)
    reported = sorted({name for record in records for name in record.get("info", {})})
    for record in records:
        kinds = {"truth": TRUTH, "measurement": MEASUREMENT, "restoration": restoration(record["sample"])}
        paths = {name: layout.image(record["id"], kind) for name, kind in kinds.items()}
        shown = {name: path if path.is_file() else None for name, path in paths.items()}
        values = {name: value for name, value in record.items() if name not in ("id", "sample", "info", "error", "hashes")}
        rows.append(
            {"id": record["id"], "sample": record["sample"]}
            | shown
            | {"error": error_image(shown["truth"], shown["restoration"])}
            | values
            | {f"info/{name}": record.get("info", {}).get(name) for name in reported}
            | {"failure": record["error"]}
        )
    return rows


def error_image(truth: Path | None, restoration: Path | None) -> Image.Image | None:
    """The mean over channels of |restoration − truth| on the grey scale of std.png; None where an image is missing."""
    if truth is None or restoration is None:
        return None
    a, b = (np.asarray(read_png(path), dtype=np.float32) for path in (truth, restoration))
    error = np.abs(b - a).reshape(*a.shape[:2], -1).mean(2)
    return Image.fromarray(np.clip(error / WHITE, 0.0, 255.0).round().astype(np.uint8))
