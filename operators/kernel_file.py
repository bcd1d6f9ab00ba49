"""A blur kernel from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffusion_priors.images.fit import Fit, resized_kernel
from diffusion_priors.images.formats import ARRAYS, not_a_file
from diffusion_priors.images.io import read_grey
from diffusion_priors.operators.array_file import read_array

SMALLEST, LARGEST = 1e-3, 1e3
"""Bounds on the sum of a kernel. Beyond them nothing of an image is left, or nothing but its brightest values."""


class KernelFile:
    """A kernel from a file, taken as it is where it fits into the images, else resized as their files are.

    Raises ValueError where it cannot be read or is no kernel (see `read_kernel`).
    """

    def __init__(self, path: str) -> None:
        self.path, self.source = path, read_kernel(path)
        self.fitted: dict[tuple[int, int], Tensor] = {}

    def file_size(self, size: tuple[int, int]) -> tuple[int, int] | None:
        """The (height, width) that every image file must have, or None: see `Operator.file_size`."""
        height, width = self.source.shape
        return None if height <= size[0] and width <= size[1] else (height, width)

    def at(self, size: tuple[int, int], fit: Fit | None) -> Tensor:
        """(1, 1, h, w) in double precision, for images of `size` that `fit` brought there. Raises ValueError where it cannot follow."""
        if size not in self.fitted:
            self.fitted[size] = torch.from_numpy(self.source if self.file_size(size) is None else self._follow(size, fit))[None, None]
        return self.fitted[size]

    def _follow(self, size: tuple[int, int], fit: Fit | None) -> np.ndarray:
        height, width = self.source.shape
        if fit is None:
            return self.source
        try:
            box = fit.box(height, width, size)
        except ValueError as error:
            raise ValueError(f"the kernel {self.path} is larger than the images: {error}") from error
        return resized_kernel(self.source, box, size)


def read_kernel(path: str) -> np.ndarray:
    """(h, w) float64: an array as it is, or a grey image scaled to sum 1.

    Raises ValueError where the file is neither, is no matrix of finite real numbers, or has a sum that is not positive,
    vanishes next to its entries, or lies outside [`SMALLEST`, `LARGEST`].
    """
    is_array = Path(path).suffix.lower() in ARRAYS
    kernel = read_array(path, "kernel") if is_array else _read_image(path)
    if kernel.ndim != 2 or kernel.size == 0 or kernel.dtype.kind not in "biuf":
        raise ValueError(f"the kernel {path} must be a matrix (height, width) of real numbers, got shape {kernel.shape}, {kernel.dtype}")
    with np.errstate(over="ignore"):
        kernel = np.array(kernel, dtype=np.float64)
        total, size = float(kernel.sum()), float(np.abs(kernel).sum())
    if not np.isfinite(kernel).all():
        raise ValueError(f"the kernel {path} has {np.count_nonzero(~np.isfinite(kernel))} entries that are not finite")
    if abs(total) <= 1e-8 * size < np.inf:
        raise ValueError(f"the kernel {path} sums to zero ({total:g}): it would erase the image's brightness")
    if total < 0.0:
        raise ValueError(f"the kernel {path} has a negative sum ({total:g}): it would turn bright into dark; change its sign")
    if is_array and not SMALLEST <= total <= LARGEST:
        raise ValueError(f"the kernel {path} sums to {total:g}, beyond [{SMALLEST:g}, {LARGEST:g}]; divide it by its sum")
    return kernel if is_array else kernel / total


def _read_image(path: str) -> np.ndarray:
    try:
        if reason := not_a_file(Path(path)):
            raise ValueError(reason)
        return read_grey(path)[0]
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"cannot read the kernel {path}: {reason}; set operator.path to an array or an image") from error
