"""Which files count as images: the formats that are read, and how many pixels are too many."""

from __future__ import annotations

import logging
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""Pillow's names of the formats that are read, whatever the file is called. No other decoder of Pillow sees a file: the one of
PostScript would hand it to Ghostscript."""
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
"""The suffixes, in lower case, by which images are found in a folder."""
ARRAYS = {".npy", ".npz", ".safetensors"}
"""The suffixes, in lower case, of files of numbers."""
LARGE, LARGEST = 90_000_000, 200_000_000
"""Pixels from which on an image is worth a notice, and the most that are read."""

KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}

Image.MAX_IMAGE_PIXELS = LARGEST  # Pillow warns above it and refuses twice as many; `open_image` refuses at once
warnings.filterwarnings("ignore", module=r"PIL\.")  # an image is used or refused, in one line
Image.core.set_block_size(64 * 2**20)  # from this size on, the memory of an image goes back to the system and not to its thread
logging.getLogger("PIL").setLevel(logging.CRITICAL)


@contextmanager
def open_image(source: Path | str | BinaryIO) -> Iterator[Image.Image]:
    """An image file, of which only the header is read yet; `load` reads the rest.

    Raises FileNotFoundError, and ValueError for a file of another format, a damaged one, or one with more than `LARGEST` pixels.
    """
    if isinstance(source, Path | str) and (reason := not_a_file(Path(source))):
        raise ValueError(reason)
    with damage_refused():
        image = Image.open(source, formats=FORMATS)
    with image:
        if image.width * image.height > LARGEST:
            raise _too_large(f"{image.width * image.height / 1e6:.0f}")
        yield image


def load(image: Image.Image) -> None:
    """Decode the pixels of an opened image. Raises ValueError where the file is damaged."""
    with damage_refused():
        image.load()


@contextmanager
def damage_refused() -> Iterator[None]:
    """The errors that Pillow raises about a file become ValueError; FileNotFoundError stays."""
    try:
        yield
    except FileNotFoundError:
        raise
    except UnidentifiedImageError as error:
        raise ValueError(f"it is no image of a known format ({', '.join(FORMATS)})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # a warning may be an error, as in tests
        raise _too_large("too many") from error
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    except Exception as error:  # a damaged file makes a decoder raise errors of many kinds
        raise ValueError(f"it is damaged ({type(error).__name__}: {error})") from error


def _too_large(megapixels: str) -> ValueError:
    return ValueError(f"it has {megapixels} megapixels, and at most {LARGEST / 1e6:.0f} are read; make it smaller")


def not_a_file(path: Path) -> str | None:
    """Why `path` cannot be read as a file; None where it can. Raises FileNotFoundError where nothing has that name."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        if os.path.islink(path):
            return f"it is a link to nothing ({os.readlink(path)})"
        if isinstance(error, FileNotFoundError):
            raise
        return getattr(error, "strerror", None) or str(error)
    return None if stat.S_ISREG(mode) else f"it is {KINDS.get(stat.S_IFMT(mode), 'no regular file')}, not a file"
