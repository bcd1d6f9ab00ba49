"""Inpainting: y = M ⊙ x0, M one on known pixels and zero on missing ones, shared by the channels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.images.fit import touched
from diffusion_priors.images.formats import ARRAYS
from diffusion_priors.images.io import read_grey
from diffusion_priors.operators.array_file import read_reals
from diffusion_priors.operators.base import IMAGE_UNIT, uniform
from diffusion_priors.operators.linear import LinearOperator
from diffusion_priors.operators.spectrum import Diagonal


class Inpainting(LinearOperator):
    """y = M ⊙ x0. A = Aᴴ = A⁺ = diag(M); missing pixels of y are 0, mid-grey in [-1, 1].

    `mask` is (B or 1, 1, H, W) once drawn.
    """

    has_spectrum = True
    unit = IMAGE_UNIT
    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", None, persistent=False)

    def forward(self, x0: Tensor) -> Tensor:
        return self.mask * x0

    def adjoint(self, y: Tensor) -> Tensor:
        return self.mask * y

    def spectrum(self) -> Diagonal:
        return Diagonal(self.mask)

    def support(self, y: Tensor) -> Tensor:
        return self.mask


class InpaintBox(Inpainting):
    """One box of `size` = (height, width) pixels is missing; by default half the image's sides.

    It stands at `place` = (top, left), by default in the middle, or with `random_place` uniformly anywhere at
    least `margin` pixels from the edge, per image. The code of DPS: size (128, 128), random_place, margin 16.

    Raises ValueError where the box leaves the image or leaves nothing known.
    """

    def __init__(
        self,
        size: tuple[int, int] | None = None,
        place: tuple[int, int] | None = None,
        random_place: bool = False,
        margin: int = 0,
    ) -> None:
        super().__init__()
        if size is not None and min(size) < 1:
            raise ValueError(f"a box needs positive sides, got {list(size)}; set operator.size=[height,width]")
        if place is not None and random_place:
            raise ValueError(f"a box has a place or a random one, not both; drop operator.place={list(place)} or operator.random_place")
        if margin and not random_place:
            raise ValueError(f"a margin is for a random place; add operator.random_place=true or drop operator.margin={margin}")
        if margin < 0:
            raise ValueError(f"the margin cannot be negative, got {margin}; set operator.margin")
        self.size, self.place, self.margin = size, place, margin
        self.random = random_place

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        height, width = like.shape[-2:]
        box = self.size or (max(1, height // 2), max(1, width // 2))
        if box[0] >= height and box[1] >= width:
            raise ValueError(f"a {box[0]} x {box[1]} box leaves nothing known of a {height} x {width} image; set operator.size")
        corners = self._random_corners(box, like, generators) if self.random else self._corner(box, height, width)
        rows, columns = (
            (index >= start[:, None]) & (index < start[:, None] + length)
            for index, start, length in zip((torch.arange(height), torch.arange(width)), corners.T, box, strict=True)
        )
        self.mask = (~(rows[:, None, :, None] & columns[:, None, None, :])).to(like)
        return self

    def _corner(self, box: Sequence[int], height: int, width: int) -> Tensor:
        top, left = self.place or ((height - box[0]) // 2, (width - box[1]) // 2)
        if top < 0 or left < 0 or top + box[0] > height or left + box[1] > width:
            raise ValueError(
                f"a {box[0]} x {box[1]} box at [{top}, {left}] leaves the {height} x {width} image; "
                "set operator.place=[top,left] or operator.size=[height,width]"
            )
        return torch.tensor([[top, left]])

    def _random_corners(self, box: Sequence[int], like: Tensor, generators: Sequence[Generator]) -> Tensor:
        room = [side - length - 2 * self.margin for side, length in zip(like.shape[-2:], box, strict=True)]
        if min(room) < 0:
            raise ValueError(
                f"a {box[0]} x {box[1]} box with margin {self.margin} does not fit a {like.shape[-2]} x {like.shape[-1]} image; "
                "set operator.size or operator.margin"
            )
        return torch.tensor([[self.margin + int(g.integers(r + 1)) for r in room] for g in generators])


class InpaintRandom(Inpainting):
    """Each pixel is known with probability `keep`, per image. The paper of DPS keeps 0.08, DAPS 0.3.

    Raises ValueError where `keep` lies outside (0, 1).
    """

    random = True

    def __init__(self, keep: float = 0.3) -> None:
        super().__init__()
        if not 0.0 < keep < 1.0:
            raise ValueError(f"the probability of a known pixel must lie between 0 and 1 (exclusive), got {keep}; set operator.keep")
        self.keep = keep

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        self.mask = (uniform(generators, 1, *like.shape[-2:], like=like) < self.keep).to(like)
        if not self.mask.flatten(1).any(1).all():
            raise ValueError(f"keep={self.keep} left nothing known of a {like.shape[-2]} x {like.shape[-1]} image; raise operator.keep")
        return self


class InpaintMask(Inpainting):
    """The mask is an image, known where it is brighter than mid-grey, or an array (H, W), known where it is not 0.

    A mask that is not of the images' size follows the crop and the resize of the image files, which must then all have its
    size. A pixel is known where nothing missing enters its value.

    Raises ValueError where the mask cannot be read, cannot follow, or has nothing known or nothing missing.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.known = self._usable(_bright(path))
        self.fitted: dict[tuple[int, int], Tensor] = {}

    def file_size(self, size: tuple[int, int]) -> tuple[int, int] | None:
        return None if self.known.shape == tuple(size) else self.known.shape

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        size = (like.shape[-2], like.shape[-1])
        if size not in self.fitted:
            self.fitted[size] = torch.from_numpy(self.known if self.file_size(size) is None else self._follow(size))
        self.mask = self.fitted[size].to(like)[None, None]
        return self

    def _follow(self, size: tuple[int, int]) -> np.ndarray:
        height, width = self.known.shape
        if self.fit is None:
            raise ValueError(
                f"the mask {self.path} is {height} x {width} and the images are {size[0]} x {size[1]} (height x width); "
                "make a mask of the images' size"
            )
        try:
            box = self.fit.box(height, width, size)
        except ValueError as error:
            raise ValueError(f"the mask {self.path} is not of the images' size: {error}") from error
        return self._usable(~touched(~self.known, box, size), f" once it is brought to {size[0]} x {size[1]} as the images are")

    def _usable(self, known: np.ndarray, when: str = "") -> np.ndarray:
        if known.all() or not known.any():
            word = "missing" if known.all() else "known"
            raise ValueError(f"the mask {self.path} has nothing {word}{when}: paint known pixels white and missing ones black")
        return known


def _bright(path: str) -> np.ndarray:
    """(H, W) bool."""
    if Path(path).suffix.lower() in ARRAYS:
        return read_reals(path, "mask", ("H", "W")) != 0.0
    try:
        grey, white = read_grey(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read the mask {path}: {error}; set operator.path to an image") from error
    return grey > white / 2
