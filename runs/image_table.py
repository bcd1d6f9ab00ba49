"""An evaluation's records beside their images, a row each: what dashboards show as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffusion_priors.runs.layout import MEASUREMENT, TRUTH, WHITE, RunLayout, restoration


def image_rows(folder: Path, records: Sequence[dict]) -> list[dict[str, Any]]:
    """id, sample, truth, measurement, restoration, error, then what else a record holds; columns the same in every row.

    The images are paths, `error` is the image of |restoration − truth|, each None where there is none. The message
    of a restoration that failed is `failure`.
    """
    rows, layout = [], RunLayout(folder)
    for record in records:
        kinds = {"truth": TRUTH, "measurement": MEASUREMENT, "restoration": restoration(record["sample"])}
        paths = {name: layout.image(record["id"], kind) for name, kind in kinds.items()}
        shown = {name: path if path.is_file() else None for name, path in paths.items()}
        values = {name: value for name, value in record.items() if name not in ("id", "sample", "error")}
        rows.append(
            {"id": record["id"], "sample": record["sample"]}
            | shown
            | {"error": error_image(shown["truth"], shown["restoration"])}
            | values
            | {"failure": record["error"]}
        )
    return rows


def error_image(truth: Path | None, restoration: Path | None) -> Image.Image | None:
    """mean over channels of |restoration − truth|, grey, white where std.png is, so that the two compare; None where either is lacking."""
    if truth is None or restoration is None:
        return None
    a, b = (np.asarray(Image.open(path), dtype=np.float32) for path in (truth, restoration))
    error = np.abs(b - a).reshape(*a.shape[:2], -1).mean(2)
    return Image.fromarray(np.clip(error / WHITE, 0.0, 255.0).round().astype(np.uint8))
