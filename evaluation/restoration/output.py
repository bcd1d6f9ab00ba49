"""The output folder: what every tool of the project writes, each file whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from tabulate import tabulate

from diffusion_priors.evaluation.reporting.figure import write_figure
from diffusion_priors.evaluation.reporting.format import heading, spec_of
from diffusion_priors.evaluation.restoration.folder import save_images
from diffusion_priors.evaluation.restoration.module import Restored
from diffusion_priors.runs.files import append_line, write_whole
from diffusion_priors.runs.layout import RECORDS


class OutputFolder:
    """config.yaml, records.jsonl, images/<id>/…, figure.png and summary.json under `root`.

    Images are written before their record, so a record vouches for them. `figure_rows` and `figure_samples`
    bound the figure. `check` refuses a `root` that already holds records unless `overwrite` is on.
    """

    def __init__(self, root: Path, overwrite: bool = False, figure_rows: int = 8, figure_samples: int = 4) -> None:
        self.root, self.overwrite = root, overwrite
        self.figure_rows, self.figure_samples = figure_rows, figure_samples
        self.tally = Tally()
        self.shown: list[dict] = []

    def check(self) -> None:
        """Raises FileExistsError or PermissionError where nothing could be written."""
        if (self.root / RECORDS).exists() and not self.overwrite:
            raise FileExistsError(f"{self.root} already holds the records of a run; choose another output_dir or add overwrite=true")
        nearest = next(p for p in (self.root, *self.root.resolve().parents) if p.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            raise PermissionError(f"cannot write to {nearest}; set output_dir to a folder that can be written")

    def open(self, config: str) -> None:
        """Start a run whose resolved configuration is the text `config`; what an earlier run left here goes."""
        for name in (RECORDS, "figure.png", "summary.json"):
            (self.root / name).unlink(missing_ok=True)
        if (self.root / "images").is_dir():
            shutil.rmtree(self.root / "images")
        write_whole(self.root / "config.yaml", lambda f: f.write(config.encode()))

    def add(self, done: Restored) -> None:
        """Write the images and the records of a finished batch."""
        for b, record in enumerate(done.records):
            save_images(self.root, done, b)
            append_line(self.root / RECORDS, json.dumps(record, allow_nan=False))
            self.tally.add(record)
            if self.tally.images <= self.figure_rows and len(self.shown) < 8 * self.figure_rows:
                self.shown.append(record)

    def finish(self, title: str, footnote: str) -> None:
        """Write figure.png and summary.json from what is on record."""
        if self.shown:
            write_figure(self.root, self.shown, title, self.figure_rows, self.figure_samples)
        summary = {"title": title, **self.tally.summary(), "footnote": footnote or None}
        write_whole(self.root / "summary.json", lambda f: f.write(json.dumps(summary, indent=2, ensure_ascii=False).encode() + b"\n"))


class Tally:
    """Running means over the records that have a value, so that a run's memory does not grow with its images.

    Records come image by image; `first_failure` is the first record with an error.
    """

    metrics = ("psnr", "ssim", "lpips")
    keys = (*metrics, "residual", "seconds", "nfe_forward", "nfe_vjp", "sigma_y", *(f"{name}_measurement" for name in metrics))

    def __init__(self) -> None:
        self.images = self.records = self.failed = 0
        self.last_id: str | None = None
        self.first_failure: dict | None = None
        self.sums = dict.fromkeys(self.keys, 0.0)
        self.counts = dict.fromkeys(self.keys, 0)

    def add(self, record: dict) -> None:
        self.records += 1
        self.images += record["id"] != self.last_id
        self.last_id = record["id"]
        if record["error"] is not None:
            self.failed += 1
            self.first_failure = self.first_failure or record
        for key in self.keys:
            if record[key] is not None:
                self.sums[key] += record[key]
                self.counts[key] += 1

    def mean(self, key: str) -> float | None:
        return self.sums[key] / self.counts[key] if self.counts[key] else None

    def summary(self) -> dict:
        counts = {"images": self.images, "records": self.records, "failed": self.failed}
        return counts | {"mean": {key: self.mean(key) for key in self.keys}}


def table(tally: Tally, footnote: str) -> str:
    """The terminal's table: means of the measurement, where scored, and of the restorations; `footnote` says why LPIPS is missing."""

    def cell(key: str, form: str) -> str:
        mean = tally.mean(key)
        if mean is not None:
            return format(mean, form)
        return "– *" if footnote and key.startswith("lpips") else "–"

    forms = {name: spec_of(name) for name in tally.metrics}
    rows = [
        ["measurement", *(cell(f"{name}_measurement", form) for name, form in forms.items()), "", "", ""],
        [
            "restoration",
            *(cell(name, form) for name, form in forms.items()),
            cell("residual", ".4f"),
            f"{cell('nfe_forward', '.0f')} + {cell('nfe_vjp', '.0f')}",
            cell("seconds", ".1f"),
        ],
    ]
    headers = ["", *(heading(name) for name in forms), "residual", "NFE forward + vjp", "seconds an image"]
    if not any(tally.counts[f"{name}_measurement"] for name in forms):
        rows = rows[1:]
    drawn = tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True, colalign=("left",) + ("right",) * 6)
    return f"{drawn}\n\n* {footnote}" if footnote else drawn
