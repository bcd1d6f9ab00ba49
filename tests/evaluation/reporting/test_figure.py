"""The grid of images that every run draws."""

from __future__ import annotations

import torch
from PIL import Image
from written_run import WrittenRun

from diffusion_priors.evaluation.reporting.figure import LABEL, TILE, draw_figure, figure_tiles
from diffusion_priors.images.io import save_image


def test_the_figure_shows_every_image_at_its_place():
    """Two rows of unequal length; the middle of each tile has its image's colour."""
    colours = [["red", "lime"], ["blue"]]
    figure = draw_figure([[(name, Image.new("RGB", (8, 8), name)) for name in row] for row in colours], "title")
    found = [
        [figure.getpixel((8 + j * (TILE + 8) + TILE // 2, 34 + i * (TILE + LABEL + 8) + TILE // 2)) for j in range(len(row))]
        for i, row in enumerate(colours)
    ]
    assert found == [[(255, 0, 0), (0, 255, 0)], [(0, 0, 255)]]


def test_a_figure_shows_what_is_drawn_of_a_measurement_with_its_axes(tmp_path):
    run = WrittenRun(tmp_path, ["a"], size=16)
    (tmp_path / "images" / "a" / "measurement.png").unlink()
    save_image(tmp_path / "images" / "a" / "drawing.png", torch.zeros(1, 30, 23), "sinogram; angle by detector; black 0, white 1")
    save_image(tmp_path / "images" / "a" / "first-look.png", torch.zeros(3, 16, 16), "back projection")
    (row,) = figure_tiles(run.write(), run.records, 8, 4)
    assert [text for text, _ in row[1:3]] == ["sinogram\nangle by detector", "back projection"]
    assert [text.split("\n")[0] for text, _ in row] == ["truth", "sinogram", "back projection", "sample 0"]


def test_a_figure_without_the_image_of_a_measurement_shows_the_others(tmp_path):
    run = WrittenRun(tmp_path, ["a", "b"], size=16)
    for path in tmp_path.glob("images/*/measurement.png"):
        path.rename(path.with_suffix(".safetensors"))
    (first, second) = figure_tiles(run.write(), run.records, 8, 4)
    assert [text.split("\n")[0] for text, _ in first] == [text.split("\n")[0] for text, _ in second] == ["truth", "sample 0"]
