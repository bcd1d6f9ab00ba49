"""Masks of other shapes than a box: y = M ⊙ x0, M one on known pixels, shared by the channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self, get_args

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.operators.inpainting import Inpainting

Side = Literal["top", "bottom", "left", "right"]


class Given(Inpainting):
    """The mask is an array (H, W), the same for all images: a pixel is known where it is True, or a number that is not 0.

    Raises ValueError for another shape, for a mask without known or without missing pixels, and for images of another size.
    """

    def __init__(self, mask: Tensor | np.ndarray) -> None:
        super().__init__()
        self.given = torch.as_tensor(mask) != 0
        if self.given.ndim != 2:
            raise ValueError(f"a mask is (height, width), got {tuple(self.given.shape)}; give one mask for all channels and images")
        if self.given.all() or not self.given.any():
            raise ValueError(f"the mask has nothing {'missing' if self.given.all() else 'known'}; 0 stands for a missing pixel")

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        if self.given.shape != like.shape[-2:]:
            given, size = ("{} x {}".format(*shape) for shape in (self.given.shape, like.shape[-2:]))
            raise ValueError(f"the mask is {given} and the prior's images are {size} (height x width); give a mask of their size")
        self.mask = self.given.to(like)[None, None]
        return self


class Outpaint(Inpainting):
    """A box of `size` = (height, width) pixels in the middle is known, by default half the image's sides; all around is missing.

    Raises ValueError where the box leaves the image or leaves nothing missing.
    """

    def __init__(self, size: tuple[int, int] | None = None) -> None:
        super().__init__()
        if size is not None and min(size) < 1:
            raise ValueError(f"the known box needs positive sides, got {list(size)}; set operator.size=[height,width]")
        self.size = size

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        height, width = like.shape[-2:]
        box = self.size or (max(1, height // 2), max(1, width // 2))
        if box[0] > height or box[1] > width or tuple(box) == (height, width):
            raise ValueError(
                f"a known box of {box[0]} x {box[1]} leaves nothing missing around it in a {height} x {width} image; "
                "set operator.size=[height,width]"
            )
        top, left = (height - box[0]) // 2, (width - box[1]) // 2
        mask = like.new_zeros(1, 1, height, width)
        mask[..., top : top + box[0], left : left + box[1]] = 1.0
        self.mask = mask
        return self


class Half(Inpainting):
    """The half of the image at the side `missing` is missing; of an odd number of rows or columns the smaller half.

    Raises ValueError for another side, and for an image of one row or column to halve.
    """

    def __init__(self, missing: Side = "right") -> None:
        super().__init__()
        if missing not in get_args(Side):
            raise ValueError(f"a half is one of {', '.join(get_args(Side))}, got {missing}; set operator.missing")
        self.missing = missing

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        height, width = like.shape[-2:]
        halves = {
            "top": np.s_[..., : height // 2, :],
            "bottom": np.s_[..., height - height // 2 :, :],
            "left": np.s_[..., : width // 2],
            "right": np.s_[..., width - width // 2 :],
        }
        self.mask = like.new_ones(1, 1, height, width)
        self.mask[halves[self.missing]] = 0.0
        if self.mask.all():
            raise ValueError(f"a {height} x {width} image has no {self.missing} half; set operator.missing")
        return self


class EveryOtherPixel(Inpainting):
    """Pixels are known in a regular pattern: (i, j) where i + j is even, a checkerboard, or every `stride`-th row and column.

    stride=[2,2] is the mask for super-resolution of RePaint (Lugmayr et al. 2022), [2,1] its alternating lines.
    Raises ValueError where a stride is not positive, or nothing is missing.
    """

    def __init__(self, stride: tuple[int, int] | None = None) -> None:
        super().__init__()
        if stride is not None and (min(stride) < 1 or max(stride) < 2):
            raise ValueError(f"a stride needs two positive numbers, one of them at least 2, got {list(stride)}; set operator.stride")
        self.stride = stride

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        height, width = like.shape[-2:]
        rows, columns = torch.arange(height, device=like.device)[:, None], torch.arange(width, device=like.device)
        known = (rows + columns) % 2 == 0
        if self.stride is not None:
            known = (rows % self.stride[0] == 0) & (columns % self.stride[1] == 0)
        if known.all():
            raise ValueError(f"stride={self.stride} leaves nothing missing of a {height} x {width} image; set operator.stride")
        self.mask = known.to(like)[None, None]
        return self


class DeadLines(Inpainting):
    """Whole rows and columns are missing, as where sensors of a camera are dead: the shares `rows` and `columns` of them, per image.

    round(share · side) lines are drawn, each set of lines with the same probability.
    Raises ValueError where a share lies outside [0, 1), and where no line is missing or none is known.
    """

    random = True

    def __init__(self, rows: float = 0.125, columns: float = 0.125) -> None:
        super().__init__()
        for name, share in (("rows", rows), ("columns", columns)):
            if not 0.0 <= share < 1.0:
                raise ValueError(f"the share of missing {name} must be at least 0 and below 1, got {share}; set operator.{name}")
        self.rows, self.columns = rows, columns

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        height, width = like.shape[-2:]
        gone = round(self.rows * height), round(self.columns * width)
        if not any(gone) or gone[0] == height or gone[1] == width:
            word = "known" if any(gone) else "missing"
            raise ValueError(
                f"rows={self.rows} and columns={self.columns} leave no line {word} of a {height} x {width} image; "
                "set operator.rows and operator.columns"
            )
        lines = [[g.permutation(side) >= count for side, count in zip((height, width), gone, strict=True)] for g in generators]
        self.mask = torch.from_numpy(np.stack([rows[:, None] & columns for rows, columns in lines])).to(like)[:, None]
        return self


class Strokes(Inpainting):
    """Strokes of a round brush are missing, another set for every image: free-form masks as in Yu et al. 2019.

    A stroke starts anywhere and takes up to `turns` straight steps of 5 to 25 % of the shorter side, each in a new direction
    near the last one. Strokes are added until the share `missing` of the pixels is covered. The brush is `width` of the
    shorter side wide, and at least a pixel. The law of the strokes is ours.

    Raises ValueError where a share lies outside (0, 1), for no step, and where nothing is left known.
    """

    random = True
    steps, bend = (0.05, 0.25), 0.8

    def __init__(self, missing: float = 0.25, width: float = 0.08, turns: int = 8) -> None:
        super().__init__()
        for name, share in (("missing", missing), ("width", width)):
            if not 0.0 < share < 1.0:
                raise ValueError(f"{name} is a share between 0 and 1 (exclusive), got {share}; set operator.{name}")
        if turns < 1:
            raise ValueError(f"a stroke needs at least one step, got turns={turns}; set operator.turns")
        self.missing, self.width, self.turns = missing, width, turns

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        height, width = like.shape[-2:]
        known = np.stack([self._known(height, width, g) for g in generators])
        if not known.any((1, 2)).all():
            raise ValueError(
                f"missing={self.missing} left nothing known of a {height} x {width} image; lower operator.missing or operator.width"
            )
        self.mask = torch.from_numpy(known).to(like)[:, None]
        return self

    def _known(self, height: int, width: int, generator: Generator) -> np.ndarray:
        """(H, W) bool."""
        known = np.ones((height, width), dtype=bool)
        radius = max(self.width * min(height, width), np.sqrt(2.0)) / 2.0
        while (~known).mean() < self.missing:
            known &= distance(self._path(height, width, generator), height, width) > radius
        return known

    def _path(self, height: int, width: int, generator: Generator) -> np.ndarray:
        """(n, 2) points (row, column) inside the image."""
        far = np.array([height - 1.0, width - 1.0])
        count = int(generator.integers(1, self.turns + 1))
        heading = generator.uniform(0.0, 2.0 * np.pi) + self.bend * generator.standard_normal(count).cumsum()
        lengths = generator.uniform(*self.steps, count) * min(height, width)
        moves = np.stack([np.sin(heading), np.cos(heading)], 1) * lengths[:, None]
        start = generator.random((1, 2)) * far
        return np.concatenate([start, moves]).cumsum(0).clip(0.0, far)


def distance(path: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W): how far each pixel lies from the line through the points (n, 2), in pixels."""
    pixels = np.moveaxis(np.mgrid[:height, :width], 0, -1)[:, :, None].astype(float)
    start, step = path[:-1], np.diff(path, axis=0)
    along = ((pixels - start) * step).sum(-1) / np.maximum((step**2).sum(-1), 1e-12)
    nearest = start + along.clip(0.0, 1.0)[..., None] * step
    return np.sqrt(((pixels - nearest) ** 2).sum(-1).min(-1))
