"""Images on disk ↔ tensors in [-1, 1]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from diffusion_priors.images.budget import PixelBudget
from diffusion_priors.images.fit import Exact, Fit, Pixels
from diffusion_priors.images.formats import damage_refused, load, open_image
from diffusion_priors.runs.files import write_whole

DECODING = PixelBudget(100_000_000)
"""What all threads of this process decode at once. An image takes up to 4 bytes per pixel, of some formats 8 more for a while."""
ORIENTATION = 0x0112
TO_UPRIGHT = {2: (False, False, True), 3: (False, True, True), 4: (False, True, False), 5: (True, False, False)}
TO_UPRIGHT |= {6: (True, False, True), 7: (True, True, True), 8: (True, True, False)}
"""What each value of the EXIF orientation asks for: to swap rows and columns, then to reverse the rows, and the columns."""


def read_image(path: Path, channels: int, size: tuple[int, int], fit: Fit) -> Tensor:
    """An image file → (channels, *size) float32 in [-1, 1], on the grid of 8 bits. Raises ValueError naming the file."""
    try:
        return decode_image(path, channels, size, fit)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot use the image {path}: {error}") from error


def image_size(path: Path) -> tuple[tuple[int, int], bool]:
    """(height, width) of an image file, turned upright, and whether it is grey. Raises ValueError naming the file."""
    try:
        with open_image(path) as image, DECODING.hold(image.width * image.height):
            load(image)  # the tag of a PNG may follow its pixels, and Pillow itself turns a TIFF
            return upright_size(image), image.mode in ("1", "L", "F") or image.mode.startswith("I")
    except ValueError as error:
        raise ValueError(f"cannot use the image {path}: {error}") from error


def read_as_is(path: Path) -> Tensor:
    """An image that this project wrote → (C, H, W) in [-1, 1], with its own size and channels."""
    with open_image(path) as image:
        size, channels = (image.height, image.width), len(image.getbands())
    return read_image(path, channels, size, Exact())


def decode_image(source: Path | BinaryIO, channels: int, size: tuple[int, int], fit: Fit) -> Tensor:
    """An encoded image → (channels, *size) float32 in [-1, 1], on the grid of 8 bits.

    The EXIF tag turns the image upright. Transparent pixels are composited onto white. 16-bit values keep their depth
    until the resize. Palette, grey and CMYK images become RGB, or grey for one channel; of an animation the first frame is read.
    A large image stays bytes: only a few of its rows are numbers at a time.

    Raises ValueError for an image that cannot be read or does not fit.
    """
    with open_image(source) as image, DECODING.hold(image.width * image.height):
        load(image)
        return fitted_image(image, channels, size, fit)


def fitted_image(image: Image.Image, channels: int, size: tuple[int, int], fit: Fit) -> Tensor:
    """A decoded image → (channels, *size) float32 in [-1, 1], on the grid of 8 bits, as `decode_image` says. Raises ValueError likewise."""
    fitted = fit(_upright(image, lambda part: _pixels(part, channels)), size)
    bits = np.rint(fitted * 255.0).astype(np.float32)
    return torch.from_numpy(bits / 127.5 - 1.0).permute(2, 0, 1).contiguous()


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) of a decoded image, turned upright."""
    pixels = _upright(image, np.asarray)
    return pixels.height, pixels.width


def _upright(image: Image.Image, values: Callable[[Image.Image], np.ndarray]) -> Pixels:
    """The pixels of a decoded image, turned upright; `values` makes numbers (H, W, C) of a part of it."""
    with damage_refused():
        swap, reverse_rows, reverse_columns = TO_UPRIGHT.get(image.getexif().get(ORIENTATION), (False, False, False))
    height, width = (image.width, image.height) if swap else (image.height, image.width)

    def rows(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        if reverse_rows:
            top, bottom = height - bottom, height - top
        if reverse_columns:
            left, right = width - right, width - left
        part = values(image.crop((top, left, bottom, right) if swap else (left, top, right, bottom)))
        part = part.swapaxes(0, 1) if swap else part
        return part[:: -1 if reverse_rows else 1, :: -1 if reverse_columns else 1]

    return Pixels(height, width, rows)


def read_grey(path: Path | str) -> tuple[np.ndarray, float]:
    """The grey levels (H, W) of a mask or a kernel as they are stored, and the level of white; transparency is ignored.

    Raises FileNotFoundError, and ValueError for a file that is no image or damaged.
    """
    with open_image(path) as image, DECODING.hold(image.width * image.height):
        load(image)
        with damage_refused():
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            return np.asarray(image), 65535.0
        return (np.asarray(image), 1.0) if image.mode == "F" else (np.asarray(image.convert("L")), 255.0)


def _pixels(image: Image.Image, channels: int) -> np.ndarray:
    """(H, W, channels) float32 in [0, 1]."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image).astype(np.float32)
        if not np.isfinite(grey).all():
            raise ValueError("it has values that are not finite")
        grey = grey / (65535.0 if image.mode.startswith("I") else 1.0)
        return np.repeat(grey.clip(0.0, 1.0)[..., None], channels, axis=-1)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    flat = image.convert("L" if channels == 1 else "RGB")
    return np.asarray(flat, dtype=np.float32).reshape(flat.height, flat.width, channels) / 255.0


def as_bits(x: Tensor) -> Tensor:
    """Values in [-1, 1], clamped → 0 … 255 as uint8, on the CPU, same shape."""
    return ((x.detach().float().cpu().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)


def to_image(x: Tensor) -> Image.Image:
    """(C, H, W) in [-1, 1], clamped → an 8-bit image, grey for one channel."""
    bits = as_bits(x)
    return Image.fromarray(bits.squeeze(0).numpy() if len(bits) == 1 else bits.permute(1, 2, 0).numpy())


def save_animation(path: Path, frames: Sequence[Image.Image], seconds: float) -> None:
    """Images of one size → an animated WebP without loss, which repeats. It takes `seconds`; then the last image stays for a while."""
    shown = [max(20, round(1000.0 * seconds / len(frames)))] * (len(frames) - 1) + [1500]
    first, *others = frames
    settings = {"save_all": True, "append_images": others, "duration": shown, "loop": 0, "lossless": True}
    write_whole(path, lambda stream: first.save(stream, "WEBP", **settings))


def save_image(path: Path, x: Tensor, description: str | None = None) -> None:
    """(C, H, W) in [-1, 1] → a PNG, with a description in it where there is one."""
    image, text = to_image(x), PngInfo()
    if description is not None:
        text.add_itxt("Description", description)
    write_whole(path, lambda stream: image.save(stream, "PNG", pnginfo=text))
