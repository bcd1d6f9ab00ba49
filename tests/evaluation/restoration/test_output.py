"""The output folder: whole files, one record an item, a summary that is the mean of the records."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_priors.diffusion.levels import CLEAN
from diffusion_priors.evaluation.reporting.figure import LABEL, TILE, draw_figure
from diffusion_priors.evaluation.restoration.module import Restored
from diffusion_priors.evaluation.restoration.output import OutputFolder, Tally, table
from diffusion_priors.evaluation.restoration.progress import ProgressReport
from diffusion_priors.runs.files import append_line, write_whole
from diffusion_priors.solvers.base import Progress


def record(name: str, sample: int = 0, psnr: float | None = 20.0, error: str | None = None) -> dict:
    scores = {"psnr": psnr, "ssim": 0.5, "lpips": None}
    spent = {"residual": 0.05, "nfe_forward": 10, "nfe_vjp": 0, "seconds": 1.0, "sigma_y": 0.05}
    measured = {"psnr_measurement": 15.0, "ssim_measurement": 0.25, "lpips_measurement": None}
    return {"id": name, "sample": sample, "seed": 0} | scores | spent | measured | {"error": error}


def restored(*records: dict) -> Restored:
    x = torch.linspace(-1, 1, len(records) * 3 * 4 * 5).view(-1, 3, 4, 5)
    return Restored(tuple(r["id"] for r in records), tuple(r["sample"] for r in records), x, x, x, list(records))


def test_write_whole_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "deep" / "file"
    write_whole(path, lambda f: f.write(b"old"))

    def fails(stream):
        stream.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, fails)
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]


def test_append_line_takes_back_a_half_written_line(tmp_path, monkeypatch):
    path = tmp_path / "records.jsonl"
    append_line(path, "first")
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
    with pytest.raises(OSError, match="only 3 of 7 bytes"):
        append_line(path, "second")
    monkeypatch.undo()
    append_line(path, "third")
    assert path.read_text() == "first\nthird\n"


def test_folder_holds_images_records_figure_and_summary(tmp_path):
    folder = OutputFolder(tmp_path)
    folder.check()
    folder.open("a: 1\n")
    folder.add(restored(record("a"), record("b", psnr=30.0)))
    folder.add(restored(record("c", psnr=None, error="not finite")))
    folder.finish("title", "note")
    rows = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert rows == [record("a"), record("b", psnr=30.0), record("c", psnr=None, error="not finite")]
    saved = np.asarray(Image.open(tmp_path / "images/a/restoration-0.png"))
    expected = ((restored(record("a"), record("b")).x0[0] + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert np.array_equal(saved, expected)
    assert not (tmp_path / "images/c/restoration-0.png").exists() and (tmp_path / "images/c/truth.png").exists()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["images"], summary["failed"], summary["mean"]["psnr"], summary["footnote"]) == (3, 1, 25.0, "note")
    assert summary["mean"]["lpips"] is None
    with pytest.raises(FileExistsError, match="already holds the records"):
        OutputFolder(tmp_path).check()
    again = OutputFolder(tmp_path, overwrite=True)
    again.check()
    again.open("a: 2\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.yaml"]


def test_records_of_infinite_metrics_are_refused(tmp_path):
    """JSON has no infinity: a record that holds one is a bug, not a line."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        OutputFolder(tmp_path).add(restored(record("a", psnr=float("inf"))))


def test_table_shows_the_means_and_the_footnote():
    tally = Tally()
    for row in (record("a"), record("b", psnr=30.0)):
        tally.add(row)
    text = table(tally, "LPIPS: no trunk")
    assert "25.00" in text and "15.00" in text and "10 + 0" in text and "– *" in text and text.endswith("* LPIPS: no trunk")
    assert tally.summary()["mean"]["psnr_measurement"] == 15.0 and tally.mean("lpips") is None
    assert "*" not in table(tally, "")


def test_figure_shows_every_image_at_its_place():
    """Two rows of unequal length; the middle of each tile has its image's colour."""
    colours = [["red", "lime"], ["blue"]]
    figure = draw_figure([[(name, Image.new("RGB", (8, 8), name)) for name in row] for row in colours], "title")
    found = [
        [figure.getpixel((8 + j * (TILE + 8) + TILE // 2, 34 + i * (TILE + LABEL + 8) + TILE // 2)) for j in range(len(row))]
        for i, row in enumerate(colours)
    ]
    assert found == [[(255, 0, 0), (0, 255, 0)], [(0, 0, 255)]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Fit:
    """A problem whose residual is known."""

    looks = 0

    def misfit(self, x0):
        self.looks += 1
        return torch.tensor([0.1, 0.3])


def run(stream, steps: int, every: float) -> Fit:
    report, problem = ProgressReport(2, every, stream), Fit()
    for _ in range(2):
        for index in range(steps):
            report(problem, Progress(index, steps, CLEAN, torch.zeros(1), torch.zeros(1)))
    report.close()
    return problem


def test_progress_is_lines_off_a_terminal():
    stream = io.StringIO()
    run(stream, 5, every=0.0)
    first = stream.getvalue().splitlines()[0]
    assert first.startswith("batch 1/2, step 1/5, residual 0.2000, ") and first.endswith(" s left")
    assert "batch 2/2, step 4/5" in stream.getvalue()


def test_progress_is_a_bar_on_a_terminal():
    stream = Terminal()
    run(stream, 5, every=0.0)
    assert "10/10" in stream.getvalue() and "residual 0.2000" in stream.getvalue()


def test_progress_looks_at_the_device_seldom():
    """Each look waits for the device: thousands of fast steps are looked at once, at the end."""
    assert run(io.StringIO(), 2000, every=60.0).looks == 1


def test_unwritable_output_is_told_before_the_run(tmp_path):
    file = Path(tmp_path / "file")
    file.write_text("x")
    with pytest.raises(PermissionError, match="set output_dir"):
        OutputFolder(file / "out").check()
