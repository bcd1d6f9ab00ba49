"""The grid of images that every run draws."""

from __future__ import annotations

from PIL import Image
from written_run import WrittenRun

from diffusion_priors.evaluation.reporting.figure import LABEL, TILE, draw_figure, figure_tiles


def test_the_figure_shows_every_image_at_its_place():
    """Two rows of unequal length; the middle of each tile has its image's colour."""
    colours = [["red", "lime"], ["blue"]]
    figure = draw_figure([[(name, Image.new("RGB", (8, 8), name)) for name in row] for row in colours], "title")
    found = [
        [figure.getpixel((8 + j * (TILE + 8) + TILE // 2, 34 + i * (TILE + LABEL + 8) + TILE // 2)) for j in range(len(row))]
        for i, row in enumerate(colours)
    ]
    assert found == [[(255, 0, 0), (0, 255, 0)], [(0, 0, 255)]]


def test_a_figure_without_the_image_of_a_measurement_shows_the_others(tmp_path):
    run = WrittenRun(tmp_path, ["a", "b"], size=16)
    for path in tmp_path.glob("images/*/measurement.png"):
        path.rename(path.with_suffix(".safetensors"))
    (first, second) = figure_tiles(run.write(), run.records, 8, 4)
    assert [text.split("\n")[0] for text, _ in first] == [text.split("\n")[0] for text, _ in second] == ["truth", "sample 0"]
