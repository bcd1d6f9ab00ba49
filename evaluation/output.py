"""The output folder: what every tool of the project writes, each file whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from tabulate import tabulate
from torch import Tensor

from diffusion.pictures import to_image
from evaluation.figure import draw_figure
from evaluation.records import RECORDS
from evaluation.restoration import Restored

FORMS = {
    "psnr": ("PSNR (dB) ↑", ".2f"),
    "ssim": ("SSIM ↑", ".3f"),
    "lpips": ("LPIPS ↓", ".3f"),
    "lpips_vgg": ("LPIPS vgg ↓", ".3f"),
    "lpips_squeeze": ("LPIPS squeeze ↓", ".3f"),
}
"""How each metric is headed, and how its figures are written."""


def heading(metric: str) -> str:
    """psnr → PSNR (dB) ↑; a metric of your own goes by its name."""
    return FORMS.get(metric, (metric,))[0]


def form(metric: str) -> str:
    return FORMS.get(metric, ("", ".3f"))[1]


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Create `path` by `write(stream)` under a temporary name and a rename, so that no half file is ever seen."""
    name = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as stream:
            write(stream)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}; make room or set another output_dir") from error
    finally:
        with suppress(OSError):
            if name is not None:
                os.unlink(name)


def append_line(path: Path, line: str) -> None:
    """Append one line to `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = line.encode() + b"\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        before = os.fstat(descriptor).st_size
        try:
            written = os.write(descriptor, data)
            if written < len(data):
                raise OSError(f"only {written} of {len(data)} bytes could be written to {path}")
        except OSError as error:
            os.ftruncate(descriptor, before)
            raise OSError(f"cannot write {path}: {error.strerror or error}; make room or set another output_dir") from error
    finally:
        os.close(descriptor)


def save_picture(path: Path, x: Tensor) -> None:
    """(C, H, W) in [-1, 1] → a PNG."""
    image = to_image(x)
    write_whole(path, lambda stream: image.save(stream, "PNG"))


def save_pictures(root: Path, done: Restored, b: int) -> None:
    """The pictures of item b → images/<id>/; no restoration where it failed."""
    record = done.records[b]
    folder = root / "images" / record["id"]
    made = done.x0 if record["error"] is None else None
    for name, pictures in (
        ("truth", done.truth),
        ("measurement", done.y),
        ("noisy", done.start),
        (f"restoration-{record['sample']}", made),
    ):
        if pictures is not None:
            save_picture(folder / f"{name}.png", pictures[b])


def write_figure(root: Path, records: list[dict], title: str, rows: int = 8, samples: int = 4) -> None:
    """figure.png: the pictures of `records` side by side, `samples` a row, or rows of samples where there is nothing beside them."""
    tiles = figure_tiles(root, records, rows, samples)
    if tiles:
        figure = draw_figure(tiles, title)
        write_whole(root / "figure.png", lambda stream: figure.save(stream, "PNG"))


def figure_tiles(root: Path, records: list[dict], rows: int, samples: int) -> list[list[tuple[str, Image.Image]]]:
    """The figure's tiles: a row per picture, or rows of samples where there is neither truth nor measurement."""
    by_id: dict[str, list[dict]] = {}
    for record in records:
        by_id.setdefault(record["id"], []).append(record)
    drawn = []
    for name, own in by_id.items():
        folder = root / "images" / name
        given = [(folder / f"{kind}.png", label(kind, own[0])) for kind in ("truth", "measurement")]
        made = [(folder / f"restoration-{r['sample']}.png", label("restoration", r)) for r in own]
        tiles = [(text, Image.open(path)) for path, text in given if path.exists()]
        width = samples if tiles else 8
        shown = [(text, Image.open(path)) for path, text in made if path.exists()]
        drawn.append(tiles + shown[:width])
        if not tiles:
            drawn += [shown[i : i + width] for i in range(width, min(len(shown), width * rows), width)]
    return [row for row in drawn if row]


def label(kind: str, record: dict) -> str:
    psnr = record.get({"truth": "", "measurement": "psnr_measurement", "restoration": "psnr"}[kind])
    name = f"sample {record['sample']}" if kind == "restoration" else kind
    return name if psnr is None else f"{name}\n{psnr:.2f} dB"


class OutputFolder:
    """config.yaml, records.jsonl, images/<id>/…, figure.png and summary.json under `root`.

    Pictures are written before their record, so a record vouches for them. `figure_rows` and `figure_samples`
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
        """Write the pictures and the records of a finished batch."""
        for b, record in enumerate(done.records):
            save_pictures(self.root, done, b)
            append_line(self.root / RECORDS, json.dumps(record, allow_nan=False))
            self.tally.add(record)
            if self.tally.pictures <= self.figure_rows and len(self.shown) < 8 * self.figure_rows:
                self.shown.append(record)

    def finish(self, title: str, footnote: str) -> None:
        """Write figure.png and summary.json from what is on record."""
        if self.shown:
            write_figure(self.root, self.shown, title, self.figure_rows, self.figure_samples)
        summary = {"title": title, **self.tally.summary(), "footnote": footnote or None}
        write_whole(self.root / "summary.json", lambda f: f.write(json.dumps(summary, indent=2, ensure_ascii=False).encode() + b"\n"))


class Tally:
    """Running means over the records that have a value, so that a run's memory does not grow with its pictures.

    Records come picture by picture; `first_failure` is the first record with an error.
    """

    metrics = ("psnr", "ssim", "lpips")
    keys = (*metrics, "residual", "seconds", "nfe_forward", "nfe_vjp", "sigma_y", *(f"{name}_measurement" for name in metrics))

    def __init__(self) -> None:
        self.pictures = self.records = self.failed = 0
        self.last_id: str | None = None
        self.first_failure: dict | None = None
        self.sums = dict.fromkeys(self.keys, 0.0)
        self.counts = dict.fromkeys(self.keys, 0)

    def add(self, record: dict) -> None:
        self.records += 1
        self.pictures += record["id"] != self.last_id
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
        counts = {"pictures": self.pictures, "records": self.records, "failed": self.failed}
        return counts | {"mean": {key: self.mean(key) for key in self.keys}}


def table(tally: Tally, footnote: str) -> str:
    """The terminal's table: means of the measurement, where scored, and of the restorations; `footnote` says why LPIPS is missing."""

    def cell(key: str, form: str) -> str:
        mean = tally.mean(key)
        if mean is not None:
            return format(mean, form)
        return "– *" if footnote and key.startswith("lpips") else "–"

    forms = {name: FORMS[name][1] for name in tally.metrics}
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
    headers = ["", *(FORMS[name][0] for name in forms), "residual", "NFE forward + vjp", "seconds a picture"]
    if not any(tally.counts[f"{name}_measurement"] for name in forms):
        rows = rows[1:]
    drawn = tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True, colalign=("left",) + ("right",) * 6)
    return f"{drawn}\n\n* {footnote}" if footnote else drawn
