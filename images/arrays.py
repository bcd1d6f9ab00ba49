"""Images in memory → tensors in [-1, 1]: PIL images, NumPy arrays and torch tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffusion_priors.images.fit import Fit
from diffusion_priors.images.io import fitted_image, upright_size

ImageLike = Image.Image | np.ndarray | Tensor
PixelRange = tuple[float, float]
SLACK = 1e-3
"""How far a float may lie outside the range of pixels, by rounding."""


def as_images(
    given: ImageLike | Sequence[ImageLike], channels: int, size: tuple[int, int], fit: Fit, pixel_range: PixelRange | None = None
) -> list[Tensor]:
    """One image, a batch or a list of images → a list of (channels, *size) float32 in [-1, 1].

    A PIL image and an array of bytes, (H, W) or (H, W, C), are fitted as an image file is. Arrays of floats are (H, W) or
    (H, W, C), tensors (C, H, W); both may have a batch in front. Their values lie in `pixel_range`, by default [-1, 1], and
    bytes in 0 … 255. A tensor must have the size already.

    Raises ValueError for another shape, for values outside the range, and for floats without a negative value where no
    `pixel_range` says that they are meant to be so.
    """
    images = _listed(given)
    if not images:
        raise ValueError("there is no image in the list; give at least one")
    return [_as_image(image, channels, size, fit, pixel_range) for image in images]


def sizes_of(given: ImageLike | Sequence[ImageLike]) -> list[tuple[int, int]]:
    """(height, width) of each image as it is given, upright."""
    return [_size_of(image) for image in _listed(given)]


def _listed(given: ImageLike | Sequence[ImageLike]) -> list[ImageLike]:
    if isinstance(given, np.ndarray | Tensor) and given.ndim == 4:
        return list(given)
    return [given] if isinstance(given, Image.Image | np.ndarray | Tensor) else list(given)


def _size_of(image: ImageLike) -> tuple[int, int]:
    if isinstance(image, Image.Image):
        return upright_size(image)
    height, width = image.shape[-2:] if isinstance(image, Tensor) else image.shape[:2]
    return height, width


def _as_image(image: ImageLike, channels: int, size: tuple[int, int], fit: Fit, pixel_range: PixelRange | None) -> Tensor:
    if isinstance(image, Image.Image):
        return fitted_image(image, channels, size, fit)
    if isinstance(image, Tensor):
        return _of_tensor(image, channels, size, pixel_range)
    if not isinstance(image, np.ndarray):
        raise ValueError(f"a {type(image).__name__} is no image; give a path, a PIL image, a NumPy array or a tensor")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise ValueError(f"an array of one image is (height, width) or (height, width, channels), got {image.shape}; move its axes")
    if image.dtype == np.uint8:
        return fitted_image(Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image), channels, size, fit)
    pixels = np.atleast_3d(np.asarray(image, dtype=np.float32))
    if pixels.shape[2] == 1:
        pixels = pixels.repeat(channels, axis=2)
    if pixels.shape[2] != channels:
        raise ValueError(f"the prior's images have {channels} channels, got an array of {image.shape}; choose or drop channels")
    scaled = _scaled(torch.from_numpy(pixels), pixel_range).numpy()
    fitted = scaled if pixels.shape[:2] == tuple(size) else 2.0 * fit((scaled + 1.0) / 2.0, size) - 1.0
    return torch.from_numpy(np.ascontiguousarray(fitted.transpose(2, 0, 1), dtype=np.float32))


def _of_tensor(image: Tensor, channels: int, size: tuple[int, int], pixel_range: PixelRange | None) -> Tensor:
    if tuple(image.shape) != (channels, *size):
        raise ValueError(
            f"a tensor of one image must be {(channels, *size)} here, (C, H, W) of the prior's size, got {tuple(image.shape)}; "
            "resize it, or give a PIL image or a NumPy array, which are cropped and resized"
        )
    image = image.detach().cpu()
    return image.float() / 127.5 - 1.0 if image.dtype == torch.uint8 else _scaled(image.float(), pixel_range)


def _scaled(x: Tensor, pixel_range: PixelRange | None) -> Tensor:
    """Floats in `pixel_range` → [-1, 1]."""
    low, high = pixel_range or (-1.0, 1.0)
    least, most = x.min().item(), x.max().item()
    if not (low - SLACK <= least and most <= high + SLACK):
        raise ValueError(f"pixels lie in [{low:g}, {high:g}], and these are from {least:.4g} to {most:.4g}; set pixel_range=(low, high)")
    if pixel_range is None and least >= 0.0:
        raise ValueError(
            f"pixels of floats lie in [-1, 1], and these are from {least:.4g} to {most:.4g}: is it [0, 1]? "
            "set pixel_range=(0, 1), or pixel_range=(-1, 1) where no pixel is darker than mid-grey"
        )
    return x if (low, high) == (-1.0, 1.0) else (x - low) * (2.0 / (high - low)) - 1.0
