"""A labelled grid of pictures."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

TILE, GAP, LABEL, TITLE = 192, 8, 40, 34


def draw_figure(rows: Sequence[Sequence[tuple[str, Image.Image]]], title: str) -> Image.Image:
    """Rows of (label, picture) → one picture. Pictures are enlarged without smoothing, so that pixels stay pixels."""
    columns = max(len(row) for row in rows)
    font, small = ImageFont.load_default(17), ImageFont.load_default(15)
    width = max(columns * (TILE + GAP) + GAP, int(font.getlength(title)) + 2 * GAP)
    sheet = Image.new("RGB", (width, TITLE + len(rows) * (TILE + LABEL + GAP) + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, GAP), title, fill="black", font=font)
    for i, row in enumerate(rows):
        for j, (label, picture) in enumerate(row):
            left, top = GAP + j * (TILE + GAP), TITLE + i * (TILE + LABEL + GAP)
            sheet.paste(_tile(picture), (left, top))
            pen.multiline_text((left + TILE / 2, top + TILE + 2), label, fill="black", font=small, anchor="ma", align="center")
    return sheet


def _tile(picture: Image.Image) -> Image.Image:
    """A picture enlarged by a whole factor where it fits, and centred on TILE x TILE."""
    longest = max(picture.size)
    scale = TILE // longest if longest <= TILE else TILE / longest
    size = [max(1, round(side * scale)) for side in picture.size]
    how = Image.Resampling.NEAREST if longest <= TILE else Image.Resampling.LANCZOS
    tile = Image.new("RGB", (TILE, TILE), "#eeeeee")
    tile.paste(picture.convert("RGB").resize(size, how), ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return tile
