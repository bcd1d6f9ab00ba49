"""The grid of images that every run draws."""

from __future__ import annotations

from PIL import Image

from diffusion_priors.evaluation.reporting.figure import LABEL, TILE, draw_figure


def test_the_figure_shows_every_image_at_its_place():
    """Two rows of unequal length; the middle of each tile has its image's colour."""
    colours = [["red", "lime"], ["blue"]]
    figure = draw_figure([[(name, Image.new("RGB", (8, 8), name)) for name in row] for row in colours], "title")
    found = [
        [figure.getpixel((8 + j * (TILE + 8) + TILE // 2, 34 + i * (TILE + LABEL + 8) + TILE // 2)) for j in range(len(row))]
        for i, row in enumerate(colours)
    ]
    assert found == [[(255, 0, 0), (0, 255, 0)], [(0, 0, 255)]]
