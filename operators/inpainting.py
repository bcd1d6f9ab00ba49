"""Inpainting: y = M ⊙ x0, M one on known pixels and zero on missing ones, shared by the channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from numpy.random import Generator
from PIL import Image
from torch import Tensor

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
    """The mask is an image: a pixel is known where it is brighter than mid-grey, missing elsewhere.

    Raises ValueError where it cannot be read, is of another size than the images, or has nothing known or
    nothing missing.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        try:
            with Image.open(path) as image:
                sixteen = image.mode.startswith("I;16")
                self.known = torch.from_numpy(np.asarray(image) > 32767 if sixteen else np.asarray(image.convert("L")) > 127)
        except OSError as error:
            raise ValueError(f"cannot read the mask {path}: {error}; set operator.path to an image") from error
        if self.known.all() or not self.known.any():
            raise ValueError(
                f"the mask {path} has nothing {'missing' if self.known.all() else 'known'}: paint known pixels white and missing ones black"
            )

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        if self.known.shape != like.shape[-2:]:
            raise ValueError(
                f"the mask {self.path} is {self.known.shape[0]} x {self.known.shape[1]} and the images are "
                f"{like.shape[-2]} x {like.shape[-1]} (height x width); make a mask of the images' size"
            )
        self.mask = self.known.to(like)[None, None]
        return self
