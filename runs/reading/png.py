"""The PNGs of a run's folder, read as a stranger's: only regular files, and no other format under that name."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from diffusion_priors.runs.reading.plain import open_regular

END = bytes.fromhex("0000000049454e44ae426082")
"""The last chunk of every PNG."""


def read_png(path: Path) -> Image.Image:
    """The decoded image. Raises FileNotFoundError, and OSError or ValueError in one line for a file that is no whole PNG."""
    with open_regular(path) as stream:
        try:
            image = Image.open(stream, formats=["PNG"])
            image.load()
            stream.seek(-len(END), os.SEEK_END)
            if stream.read() != END:
                raise ValueError("it is truncated")
        except UnidentifiedImageError as error:
            raise ValueError("it is no PNG") from error
        except (SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(" ".join(str(error).split())) from error
    return image


def description(image: Image.Image) -> str:
    """The text that says what a PNG shows; empty where it has none."""
    return " ".join(str(image.info.get("Description", "")).split())[:200]


def png_or_none(path: Path) -> Image.Image | None:
    """The decoded image; None where there is none that can be read."""
    try:
        return read_png(path)
    except (OSError, ValueError):
        return None
