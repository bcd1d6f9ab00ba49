"""What `restore` is given → the items of a run: files as the scripts read them, and images and measurements in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from diffusion_priors.evaluation.restoration.batches import Batch, Items
from diffusion_priors.evaluation.restoration.images import ImageSet, check_known
from diffusion_priors.images.arrays import ImageLike, PixelRange, as_images, sizes_of
from diffusion_priors.images.fit import Fit
from diffusion_priors.images.ids import alike
from diffusion_priors.runs.ids import check_id
from diffusion_priors.solvers.method import Method

Path: TypeAlias = str | os.PathLike[str]
ImagesInMemory: TypeAlias = ImageLike | Sequence[ImageLike]
Images: TypeAlias = Path | Sequence[Path] | ImagesInMemory
"""A path (file, folder or glob), an image in memory, or several of either; see `images.arrays.as_images` for those in memory."""


class ItemsInMemory(Items):
    """Clean images `truth`, or measurements `measured`, one tensor for each id."""

    def __init__(self, ids: Sequence[str], truth: list[Tensor] | None, measured: list[Tensor] | None, num_samples: int) -> None:
        super().__init__(ids, num_samples)
        self.truth, self.measured, self.has_truth = truth, measured, truth is not None

    def __getitem__(self, item: int) -> Batch:
        index, sample = divmod(item, self.num_samples)
        truth, measured = (None if images is None else images[index][None] for images in (self.truth, self.measured))
        return Batch((self.ids[index],), (sample,), truth, measured)


def clean_items(
    images: Images, method: Method, fit: Fit, ids: Sequence[str] | None, num_samples: int, pixel_range: PixelRange | None
) -> Items:
    """The items of clean images, which are degraded and restored."""
    if (paths := _paths(images)) is not None:
        _without_ids(ids)
        return ImageSet(fit, root=paths).items(method, num_samples)
    method.operator.fit = fit
    channels, *size = method.image_shape
    in_memory = cast(ImagesInMemory, images)
    truth = as_images(in_memory, channels, (size[0], size[1]), fit, pixel_range)
    wanted = method.operator.file_size((size[0], size[1]))
    if wanted is not None and any(own != wanted for own in sizes_of(in_memory)):
        raise ValueError(
            f"the mask or kernel is {wanted[0]} x {wanted[1]} (height x width), which is neither the prior's size nor that of every image; "
            "give operator a file of one of these sizes"
        )
    return ItemsInMemory(_ids(ids, len(truth)), truth, None, num_samples)


def measured_items(given: Images, method: Method, fit: Fit, ids: Sequence[str] | None, num_samples: int) -> Items:
    """The items of measurements that exist: images of y, by path or as bytes, or y itself in its own unit.

    Raises ValueError for an operator that draws at random, since it is not the one that measured, and for another shape.
    """
    if (paths := _paths(given)) is not None:
        _without_ids(ids)
        return ImageSet(fit, degraded=paths).items(method, num_samples)
    method.operator.fit = fit
    check_known(method.operator)
    like = method.grey_measurement()
    measured = _rows(torch.as_tensor(given), like) if _is_raw(given) else _images_of_y(given, method, like, fit)
    return ItemsInMemory(_ids(ids, len(measured)), None, measured, num_samples)


def _images_of_y(given: Images, method: Method, like: Tensor, fit: Fit) -> list[Tensor]:
    image = method.operator.as_image(like)
    if image is None:
        raise ValueError(
            f"the measurement of {type(method.operator).__name__} is no image; give measurement= as a tensor {tuple(like.shape[1:])}"
        )
    return as_images(cast(ImagesInMemory, given), image.shape[1], (image.shape[2], image.shape[3]), fit)


def _is_raw(given: Images) -> bool:
    """Whether numbers are y itself: all but bytes."""
    return isinstance(given, Tensor) or (isinstance(given, np.ndarray) and given.dtype != np.uint8)


def _rows(y: Tensor, like: Tensor) -> list[Tensor]:
    """y of one image or of several → one tensor for each, of the shape and the kind of `like` (1, …)."""
    y = y.detach().cpu()
    rows = y[None] if y.shape == like.shape[1:] else y
    if rows.shape[1:] != like.shape[1:] or len(rows) == 0 or (rows.is_complex() and not like.is_complex()):
        kind = "complex" if like.is_complex() else "real"
        raise ValueError(
            f"this operator gives {kind} measurements {tuple(like.shape[1:])} of one image, got {tuple(y.shape)} {y.dtype}; "
            "give measurement= of that shape, with or without a batch in front"
        )
    return list(rows.to(like.dtype))


def _paths(given: Images) -> str | list[str] | None:
    """The paths as texts; None for images in memory."""
    if isinstance(given, str | os.PathLike):
        return os.fspath(given)
    if isinstance(given, list | tuple) and given and all(isinstance(one, str | os.PathLike) for one in given):
        return [os.fspath(one) for one in given]
    return None


def _without_ids(ids: Sequence[str] | None) -> None:
    if ids is not None:
        raise ValueError("the ids of image files are their names; leave out ids=, or open the files yourself")


def _ids(ids: Sequence[str] | None, count: int) -> list[str]:
    """The ids given, or image-0, image-1, …. Raises ValueError where they do not name each image apart from the others."""
    if ids is None:
        return [f"image-{number}" for number in range(count)]
    names = [ids] if isinstance(ids, str) else list(ids)
    if len(names) != count:
        raise ValueError(f"ids= names {len(names)} images, and {count} are given; give one id for each")
    for name in names:
        check_id(name)
    if len({*names}) < count or alike(names):
        raise ValueError(f"ids={names} names two images alike; an id stands for one image")
    return names
