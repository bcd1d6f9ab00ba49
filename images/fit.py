"""How an image is brought to the size that a prior restores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

AT_ONCE = 1 << 17
"""Pixels of a large image that are held as numbers at once."""


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Pixels:
    """An image whose rows are read when they are needed: `rows(top, bottom, left, right)` → (bottom − top, right − left, C) floats."""

    height: int
    width: int
    rows: Callable[[int, int, int, int], np.ndarray]

    @classmethod
    def of(cls, array: np.ndarray) -> Pixels:
        """(H, W, C)."""
        return cls(*array.shape[:2], lambda top, bottom, left, right: array[top:bottom, left:right])


class Fit:
    """An image of any size → an image of the wanted size: the part `box` of it, resized."""

    def box(self, height: int, width: int, size: tuple[int, int]) -> Box:
        """The part of a height × width image that is kept. Raises ValueError for an image that does not fit."""
        raise NotImplementedError

    def __call__(self, image: np.ndarray | Pixels, size: tuple[int, int]) -> np.ndarray:
        """(H, W, C) floats in [0, 1] → (*size, C)."""
        pixels = image if isinstance(image, Pixels) else Pixels.of(image)
        return resize_box(pixels, self.box(pixels.height, pixels.width, size), size)


class Crop(Fit):
    """The largest centred crop of the wanted aspect ratio, then resized: averaged over areas down, bicubic up."""

    def box(self, height: int, width: int, size: tuple[int, int]) -> Box:
        scale = min(height / size[0], width / size[1])
        kept = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
        return Box((height - kept[0]) // 2, (width - kept[1]) // 2, *kept)


class Stretch(Fit):
    """Resized to the wanted size whatever the aspect ratio; nothing is cut off."""

    def box(self, height: int, width: int, size: tuple[int, int]) -> Box:
        return Box(0, 0, height, width)


class Exact(Fit):
    """The image as it is. Raises ValueError for another size."""

    def box(self, height: int, width: int, size: tuple[int, int]) -> Box:
        if (height, width) != tuple(size):
            raise ValueError(f"it is {height} x {width}, wanted is {size[0]} x {size[1]}; use fit=crop or fit=stretch")
        return Box(0, 0, height, width)


class Through(Fit):
    """How `fit` brings an image file to `image_size`, for an operator that sees this image at another size, with the same view.

    A file that has `image_size` already is taken whole.
    """

    def __init__(self, fit: Fit, image_size: tuple[int, int]) -> None:
        self.fit, self.image_size = fit, image_size

    def box(self, height: int, width: int, size: tuple[int, int]) -> Box:
        if (height, width) == self.image_size:
            return Box(0, 0, height, width)
        return self.fit.box(height, width, self.image_size)


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, C) → (*size, C): the average over each new pixel's area where it shrinks, bicubic where it grows."""
    return resize_box(Pixels.of(pixels), Box(0, 0, *pixels.shape[:2]), size)


def resize_box(pixels: Pixels, box: Box, size: tuple[int, int]) -> np.ndarray:
    """The part `box` of an image → (*size, C). An axis that shrinks is averaged over areas; then bicubic, clipped to [0, 1]."""
    if (box.height, box.width) == tuple(size):
        return pixels.rows(box.top, box.top + box.height, box.left, box.left + box.width)
    averaged = _average(pixels, box, min(size[0], box.height), min(size[1], box.width))
    return averaged if averaged.shape[:2] == tuple(size) else bicubic(averaged, size).clip(0.0, 1.0)


def bicubic(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, C) → (*size, C), not smaller; it may overshoot."""
    channels = [np.ascontiguousarray(c, dtype=np.float32) for c in pixels.transpose(2, 0, 1)]
    return np.stack([np.asarray(Image.fromarray(c).resize(size[::-1], Image.Resampling.BICUBIC)) for c in channels], axis=-1)


def _average(pixels: Pixels, box: Box, height: int, width: int) -> np.ndarray:
    """Each new pixel is the average over its area. `AT_ONCE` pixels are read at once, and the rest of a large image stays bytes."""
    columns, edges = area_weights(box.width, width), np.arange(height + 1) * (box.height / height)
    together = max(1, int(AT_ONCE / (box.width * box.height / height)))
    parts = []
    for start in range(0, height, together):
        stop = min(start + together, height)
        top, bottom = int(edges[start]), min(box.height, int(np.ceil(edges[stop])))
        rows = area_weights(box.height, height, start, stop)[:, top:bottom]
        part = pixels.rows(box.top + top, box.top + bottom, box.left, box.left + box.width)
        parts.append(np.einsum("yh,hwc,xw->yxc", rows, part, columns, optimize=True))
    return np.concatenate(parts)


def area_weights(old: int, new: int, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Rows `start` to `stop` of (new, old) weights: how much of each old pixel lies in each new one.

    PIL's BOX filter counts a pixel whole or not at all.
    """
    edges = np.arange(start, (new if stop is None else stop) + 1) * (old / new)
    return np.diff(np.clip(edges[:, None] - np.arange(old), 0.0, 1.0), axis=0) * new / old


def touched(marked: np.ndarray, box: Box, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool → (*size) bool: the new pixels whose value depends on a marked one, when the part `box` is resized."""
    share = _average(Pixels.of(marked[..., None]), box, min(size[0], box.height), min(size[1], box.width))
    share = share if share.shape[:2] == tuple(size) else bicubic(share, size)
    return np.abs(share[..., 0]) > 1e-6


def resized_kernel(kernel: np.ndarray, box: Box, size: tuple[int, int]) -> np.ndarray:
    """The kernel (h, w), centred at (h // 2, w // 2), of images whose part `box` is resized to `size`; the sum stays.

    Each tap moves to its offset from the centre divided by the scale and is shared by the taps that its area covers.
    """
    rows = _tap_weights(kernel.shape[0], box.height / size[0], size[0])
    columns = _tap_weights(kernel.shape[1], box.width / size[1], size[1])
    small = rows @ kernel @ columns.T
    return small * (kernel.sum() / small.sum())


def _tap_weights(taps: int, scale: float, most: int) -> np.ndarray:
    """(new, taps), new odd and at most `most`: how much of each old tap lies in each new one."""
    centre = taps // 2 + 0.5
    half = min(int(np.ceil(centre / scale - 0.5)), (most - 1) // 2)
    edges = (np.arange(2 * half + 2) - half - 0.5) * scale + centre
    return np.diff(np.clip(edges[:, None] - np.arange(taps), 0.0, 1.0), axis=0)
