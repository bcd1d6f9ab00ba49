"""How an image is brought to the size that a prior restores."""

from __future__ import annotations

import numpy as np
from PIL import Image


class Fit:
    """An image of any size → an image of the wanted size. Values are floats in [0, 1], (H, W, C)."""

    def __call__(self, pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        raise NotImplementedError


class Crop(Fit):
    """The largest centred crop of the wanted aspect ratio, then resized: averaged over areas down, bicubic up."""

    def __call__(self, pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        height, width = pixels.shape[:2]
        scale = min(height / size[0], width / size[1])
        kept = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
        top, left = (height - kept[0]) // 2, (width - kept[1]) // 2
        return resize(pixels[top : top + kept[0], left : left + kept[1]], size)


class Stretch(Fit):
    """Resized to the wanted size whatever the aspect ratio; nothing is cut off."""

    def __call__(self, pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return resize(pixels, size)


class Exact(Fit):
    """The image as it is. Raises ValueError for another size."""

    def __call__(self, pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        if pixels.shape[:2] != tuple(size):
            raise ValueError(f"it is {pixels.shape[0]} x {pixels.shape[1]}, wanted is {size[0]} x {size[1]}; use fit=crop or fit=stretch")
        return pixels


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, C) → (*size, C): the average over each new pixel's area where it shrinks, bicubic where it grows."""
    if pixels.shape[:2] == tuple(size):
        return pixels
    if size[0] <= pixels.shape[0] and size[1] <= pixels.shape[1]:
        rows, columns = (area_weights(old, new) for old, new in zip(pixels.shape, size, strict=False))
        return np.einsum("yh,hwc,xw->yxc", rows, pixels, columns, optimize=True)
    channels = [Image.fromarray(np.ascontiguousarray(c)).resize(size[::-1], Image.Resampling.BICUBIC) for c in pixels.transpose(2, 0, 1)]
    return np.stack([np.asarray(c) for c in channels], axis=-1).clip(0.0, 1.0)


def area_weights(old: int, new: int) -> np.ndarray:
    """(new, old) weights: how much of each old pixel lies in each new one. PIL's BOX filter counts a pixel whole or not at all."""
    edges = np.arange(new + 1) * (old / new)
    return np.diff(np.clip(edges[:, None] - np.arange(old), 0.0, 1.0), axis=0) * new / old
