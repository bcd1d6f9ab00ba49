"""Means that are images of files: those of a folder, or patches of them."""

from __future__ import annotations

from itertools import product
from math import prod

import torch
from torch import Tensor

from diffusion_priors.diffusion.analytic.shapes import Shape
from diffusion_priors.diffusion.image_random import image_generator
from diffusion_priors.images.find import find_images
from diffusion_priors.images.fit import Crop, Fit
from diffusion_priors.images.io import read_image

MOST_NUMBERS = 2**29
"""In memory, 2 GiB in float32."""


class Folder:
    """The images of `root` (a file, a folder, a glob or a list), each brought to the prior's size by `fit`, in float32.

    With `limit` only so many of them, chosen by `seed`. Raises ValueError or FileNotFoundError where there are none, for an image
    that cannot be read or does not fit, for a limit below 1, and for more images than memory should hold.
    """

    def __init__(self, fit: Fit, root: str | list[str], limit: int | None = None, seed: int = 0) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"at least one image is needed, got limit={limit}; set prior.means.limit, or prior.means.limit=null for all")
        self.fit, self.root, self.limit, self.seed = fit, root, limit, seed

    def __call__(self, shape: Shape) -> Tensor:
        paths = find_images(self.root).paths
        if self.limit is not None and self.limit < len(paths):
            chosen = image_generator(self.seed, "means").choice(len(paths), self.limit, replace=False)
            paths = [paths[i] for i in sorted(chosen)]
        check_memory(len(paths), shape, "prior.means.limit")
        return torch.stack([read_image(path, shape[0], shape[1:], self.fit) for path in paths])


class Patches:
    """`components` patches of the images of `root`, drawn by `seed`. The images are first brought to `zoom` times the prior's size.

    With `turned` each patch is there a second time, turned by 180°: phase retrieval cannot tell the two apart. In float32.
    Raises ValueError where a number is below 1, and what Folder raises.
    """

    def __init__(self, root: str | list[str], components: int = 100, zoom: int = 4, turned: bool = False, seed: int = 0) -> None:
        for name, value in (("components", components), ("zoom", zoom)):
            if value < 1:
                raise ValueError(f"patches need {name} of at least 1, got {value}; set prior.means.{name}")
        self.root, self.components, self.zoom, self.turned, self.seed = root, components, zoom, turned, seed

    def __call__(self, shape: Shape) -> Tensor:
        channels, height, width = shape
        copies = (False, True) if self.turned else (False,)
        check_memory(self.components * len(copies), shape, "prior.means.components")
        images = Folder(Crop(), self.root)((channels, self.zoom * height, self.zoom * width))
        return torch.stack([self._patch(images, k, shape, turn) for turn, k in product(copies, range(self.components))])

    def _patch(self, images: Tensor, k: int, shape: Shape, turn: bool) -> Tensor:
        generator = image_generator(self.seed, k, "patch")
        image = images[generator.integers(len(images))]
        top, left = (int(generator.integers(side - own + 1)) for side, own in zip(image.shape[1:], shape[1:], strict=True))
        patch = image[:, top : top + shape[1], left : left + shape[2]]
        return patch.flip(-2, -1) if turn else patch


def check_memory(count: int, shape: Shape, key: str) -> None:
    """Raises ValueError where `count` images of `shape` are more than memory should hold; `key` is the setting that lowers it."""
    most = MOST_NUMBERS // prod(shape)
    if count > most:
        raise ValueError(
            f"{count} images of {' x '.join(map(str, shape))} are too many to hold in memory, at most {most} of this size are; "
            f"set {key}={most}, or lower prior.size"
        )
