"""Images on disk ↔ tensors in [-1, 1]."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from diffusion_priors.images.fit import Exact, Fit
from diffusion_priors.runs.files import write_whole

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}


def find_images(where: str | Sequence[str]) -> list[Path]:
    """The image files that `where` names, sorted: a file, a folder (searched recursively), a glob, or a list of these in its own order.

    Raises FileNotFoundError where there are none.
    """
    if not isinstance(where, str):
        return [path for one in where for path in find_images(one)]
    path = Path(where).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not found:
            raise FileNotFoundError(f"no images in the folder {where}; it should hold files like {', '.join(sorted(SUFFIXES)[:6])}")
        return found
    found = sorted(p for p in map(Path, glob.glob(str(path), recursive=True)) if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise FileNotFoundError(f"no image at {where}; give a file, a folder or a glob that exists")
    return found


def image_ids(paths: Sequence[Path]) -> list[str]:
    """One unique name per image: its file name without suffix. Images that share it get as much of the path as distinguishes them.

    Raises ValueError where an image is given twice.
    """
    resolved = [path.resolve() for path in paths]
    twice, times = Counter(resolved).most_common(1)[0]
    if times > 1:
        raise ValueError(f"the image {twice} is given twice; results are stored by image, so give it once")
    ids = [path.stem for path in resolved]
    for depth in range(1, max((len(path.parts) for path in resolved), default=1)):
        shared = {name for name, count in Counter(ids).items() if count > 1}
        ids = ["_".join(path.parts[1:][-depth:]) if name in shared else name for name, path in zip(ids, resolved, strict=True)]
    seen: Counter[str] = Counter()
    for index, name in enumerate(ids):  # paths that differ only in the position of an underscore
        seen[name] += 1
        if seen[name] > 1:
            ids[index] = f"{name}~{seen[name]}"
    return ids


def read_image(path: Path, channels: int, size: tuple[int, int], fit: Fit) -> Tensor:
    """An image file → (channels, *size) float32 in [-1, 1], on the grid of 8 bits. Raises ValueError naming the file."""
    try:
        with path.open("rb") as stream:
            return decode_image(stream, channels, size, fit)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot use the image {path}: {error}") from error


def read_as_is(path: Path) -> Tensor:
    """An image that this project wrote → (C, H, W) in [-1, 1], with its own size and channels."""
    with Image.open(path) as image:
        size, channels = (image.height, image.width), len(image.getbands())
    return read_image(path, channels, size, Exact())


def decode_image(stream: BinaryIO, channels: int, size: tuple[int, int], fit: Fit) -> Tensor:
    """An encoded image → (channels, *size) float32 in [-1, 1], on the grid of 8 bits.

    The EXIF tag turns the image upright. Transparent pixels are composited onto white. 16-bit values keep their depth
    until the resize. Palette, grey and CMYK images become RGB, or grey for one channel; of an animation the first frame is read.

    Raises ValueError for an image that cannot be read or does not fit.
    """
    try:
        with Image.open(stream) as image:
            fitted = fit(_pixels(ImageOps.exif_transpose(image), channels), size)
    except UnidentifiedImageError as error:
        raise ValueError("it is not an image of a known format") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error
    bits = np.rint(fitted * 255.0).astype(np.float32)
    return torch.from_numpy(bits / 127.5 - 1.0).permute(2, 0, 1).contiguous()


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


def save_image(path: Path, x: Tensor) -> None:
    """(C, H, W) in [-1, 1] → a PNG."""
    image = to_image(x)
    write_whole(path, lambda stream: image.save(stream, "PNG"))
