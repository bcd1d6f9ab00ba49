"""A labelled grid of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from diffusion_priors.evaluation.reporting.format import number, spec_of
from diffusion_priors.runs.files import write_whole
from diffusion_priors.runs.layout import DRAWING, FIRST_LOOK, MEASUREMENT, TRUTH, RunLayout, restoration
from diffusion_priors.runs.reading.png import description, png_or_none
from diffusion_priors.runs.reading.records import records_by_image

TILE, GAP, LABEL, TITLE = 192, 8, 40, 34
SAMPLES_ALONE = 8
"""Samples in a row of figure.png if there is neither a ground truth nor an image of the measurement."""

Tile = tuple[str, Image.Image]
"""An image and the label below it."""


def draw_figure(rows: Sequence[Sequence[Tile]], title: str) -> Image.Image:
    """Rows of tiles → one image. Small images are enlarged without smoothing, so that their pixels stay visible."""
    columns = max(len(row) for row in rows)
    font, small = ImageFont.load_default(17), ImageFont.load_default(15)
    width = max(columns * (TILE + GAP) + GAP, int(font.getlength(title)) + 2 * GAP)
    sheet = Image.new("RGB", (width, TITLE + len(rows) * (TILE + LABEL + GAP) + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, GAP), title, fill="black", font=font)
    for i, row in enumerate(rows):
        for j, (label, image) in enumerate(row):
            left, top = GAP + j * (TILE + GAP), TITLE + i * (TILE + LABEL + GAP)
            sheet.paste(_tile(image), (left, top))
            pen.multiline_text((left + TILE / 2, top + TILE + 2), label, fill="black", font=small, anchor="ma", align="center")
    return sheet


def _tile(image: Image.Image) -> Image.Image:
    """An image centred on TILE x TILE: enlarged by an integer factor if it is smaller, reduced if it is larger."""
    longest = max(image.size)
    scale = TILE // longest if longest <= TILE else TILE / longest
    size = [max(1, round(side * scale)) for side in image.size]
    resampling = Image.Resampling.NEAREST if longest <= TILE else Image.Resampling.LANCZOS
    tile = Image.new("RGB", (TILE, TILE), "#eeeeee")
    tile.paste(image.convert("RGB").resize(size, resampling), ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return tile


def enlarged(image: Image.Image) -> Image.Image:
    """A small image about as large as a tile, by a whole factor and without smoothing."""
    factor = max(1, TILE // max(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def write_figure(root: Path, records: list[dict], title: str, rows: int = 8, samples: int = 4) -> None:
    """Write figure.png: a row per image of `records` with at most `samples` restorations, or rows of samples if there is nothing else."""
    tiles = figure_tiles(root, records, rows, samples)
    if tiles:
        figure = draw_figure(tiles, title)
        write_whole(RunLayout(root).figure, lambda stream: figure.save(stream, "PNG"))


def figure_tiles(root: Path, records: list[dict], rows: int, samples: int) -> list[list[Tile]]:
    """A row per image: ground truth and measurement, or what is drawn of one that is no image, then restorations.

    An image that has neither fills up to `rows` rows with its samples.
    """
    layout = RunLayout(root)
    drawn = []
    for name, own in records_by_image(records).items():
        inputs = [(layout.image(name, kind), label(kind, own[0])) for kind in (TRUTH, MEASUREMENT)]
        inputs += [(layout.image(name, kind), None) for kind in (DRAWING, FIRST_LOOK)]
        restorations = [(layout.image(name, restoration(r["sample"])), label("restoration", r)) for r in own]
        tiles, shown = _tiles(inputs), _tiles(restorations)
        width = samples if tiles else SAMPLES_ALONE
        drawn.append(tiles + shown[:width])
        if not tiles:
            drawn += [shown[i : i + width] for i in range(width, min(len(shown), width * rows), width)]
    return [row for row in drawn if row]


def _tiles(files: Sequence[tuple[Path, str | None]]) -> list[Tile]:
    """The images that exist, with the text beside the path, or with what the image says of itself."""
    found = [(text, png_or_none(path)) for path, text in files]
    return [(described(image) if text is None else text, image) for text, image in found if image is not None]


def described(image: Image.Image) -> str:
    """The name and the axes of a drawing."""
    return "\n".join(description(image).split("; ")[:2])


def label(kind: str, record: dict) -> str:
    psnr = record.get({TRUTH: "", MEASUREMENT: "psnr_measurement", "restoration": "psnr"}[kind])
    name = f"sample {record['sample']}" if kind == "restoration" else kind
    return name if psnr is None else f"{name}\n{number(psnr, spec_of('psnr'))} dB"
