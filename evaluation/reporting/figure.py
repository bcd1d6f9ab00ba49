"""A labelled grid of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from diffusion_priors.runs.files import write_whole

TILE, GAP, LABEL, TITLE = 192, 8, 40, 34


def draw_figure(rows: Sequence[Sequence[tuple[str, Image.Image]]], title: str) -> Image.Image:
    """Rows of (label, image) → one image. Images are enlarged without smoothing, so that pixels stay pixels."""
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
    """An image enlarged by a whole factor where it fits, and centred on TILE x TILE."""
    longest = max(image.size)
    scale = TILE // longest if longest <= TILE else TILE / longest
    size = [max(1, round(side * scale)) for side in image.size]
    how = Image.Resampling.NEAREST if longest <= TILE else Image.Resampling.LANCZOS
    tile = Image.new("RGB", (TILE, TILE), "#eeeeee")
    tile.paste(image.convert("RGB").resize(size, how), ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return tile


def write_figure(root: Path, records: list[dict], title: str, rows: int = 8, samples: int = 4) -> None:
    """figure.png: the images of `records` side by side, `samples` a row, or rows of samples where there is nothing beside them."""
    tiles = figure_tiles(root, records, rows, samples)
    if tiles:
        figure = draw_figure(tiles, title)
        write_whole(root / "figure.png", lambda stream: figure.save(stream, "PNG"))


def figure_tiles(root: Path, records: list[dict], rows: int, samples: int) -> list[list[tuple[str, Image.Image]]]:
    """The figure's tiles: a row per image, or rows of samples where there is neither truth nor measurement."""
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
