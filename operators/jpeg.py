"""JPEG compression: y is the image that a JPEG file holds."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from math import pi
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from diffusion_priors.operators.base import IMAGE_UNIT, Operator
from diffusion_priors.operators.rounding import rounded


class JPEG(Operator):
    """y = decode(encode(x0)) at a `quality` from 1 to 95: colours to YCbCr, halved in size, and 8 × 8 cosine coefficients rounded.

    A measurement is made by the real encoder, Pillow's (`acquire`). `forward` computes the same in floating point, without the
    encoder's rounding of colours to 8 bits: the two differ by less than one of 255 grey levels in the mean. Its gradient is
    that without rounding of the coefficients (`rounded`); the true slope is 0.

    Three channels are RGB; of other numbers each channel is a grey file. An image to start from is y. Raises ValueError for
    another quality.
    """

    unit = IMAGE_UNIT
    rounds = True
    tables: Tensor

    def __init__(self, quality: int = 10) -> None:
        super().__init__()
        if not 1 <= quality <= 95:
            raise ValueError(f"the quality of a JPEG lies between 1 and 95, got {quality}; set operator.quality")
        self.quality = quality
        for name in ("tables", "cosines"):
            self.register_buffer(name, None, persistent=False)

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        self.tables, self.cosines = quantisation_tables(self.quality).to(like), cosine_matrix().to(like)
        return self

    def forward(self, x0: Tensor) -> Tensor:
        levels = (x0.clamp(-1.0, 1.0) + 1.0) * 127.5
        if x0.shape[1] != 3:
            return self._compressed(levels, 0).clamp(0.0, 255.0) / 127.5 - 1.0
        luma, chroma = to_ycbcr(levels).split((1, 2), 1)
        height, width = x0.shape[-2:]
        halved = F.avg_pool2d(F.pad(chroma, (0, width % 2, 0, height % 2), mode="replicate"), 2)
        restored = F.interpolate(self._compressed(halved, 1).clamp(0.0, 255.0), scale_factor=2, mode="bilinear", align_corners=False)
        colours = torch.cat([self._compressed(luma, 0).clamp(0.0, 255.0), restored[..., :height, :width]], 1)
        return to_rgb(colours).clamp(0.0, 255.0) / 127.5 - 1.0

    def _compressed(self, values: Tensor, table: int) -> Tensor:
        """Values in [0, 255] with the cosine coefficients of their 8 × 8 blocks rounded to multiples of the table's entries."""
        height, width = values.shape[-2:]
        padded = F.pad(values, (0, -width % 8, 0, -height % 8), mode="replicate") - 128.0
        blocks = padded.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).transpose(-3, -2)  # (B, C, H/8, W/8, 8, 8)
        step = self.tables[table]
        coefficients = step * rounded(self.cosines @ blocks @ self.cosines.mT / step)
        blocks = self.cosines.mT @ coefficients @ self.cosines
        return blocks.transpose(-3, -2).flatten(-4, -3).flatten(-2, -1)[..., :height, :width] + 128.0

    def acquire(self, x0: Tensor) -> Tensor:
        """y by Pillow, image by image."""
        images = ((x0.clamp(-1.0, 1.0) + 1.0) * 127.5).round().byte().movedim(1, -1).cpu().numpy()
        return torch.from_numpy(np.stack([self._by_pillow(image) for image in images])).to(x0).movedim(-1, 1) / 127.5 - 1.0

    def _by_pillow(self, image: np.ndarray) -> np.ndarray:
        """(H, W, C) uint8 → the same by way of JPEG files."""
        if image.shape[-1] != 3:
            return np.stack([through_file(channel, self.quality) for channel in np.moveaxis(image, -1, 0)], -1)
        return through_file(image, self.quality)

    def initial_image(self, y: Tensor) -> Tensor:
        return y


def through_file(image: np.ndarray, quality: int) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8 → what a JPEG file holds of it."""
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file, formats=["JPEG"]))


def quantisation_tables(quality: int) -> Tensor:
    """The tables (2, 8, 8) for luma and chroma, from a file that Pillow wrote."""
    file = BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
    file.seek(0)
    tables = JpegImageFile(file).quantization
    return torch.tensor([tables[0], tables[1]], dtype=torch.float64).view(2, 8, 8)


def cosine_matrix() -> Tensor:
    """The orthonormal discrete cosine transform of 8 values."""
    n = torch.arange(8, dtype=torch.float64)
    matrix = torch.cos(pi / 8.0 * (n + 0.5) * n[:, None]) / 2.0
    matrix[0] /= 2.0**0.5
    return matrix


def to_ycbcr(rgb: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 255] → JFIF's luma and chroma."""
    red, green, blue = rgb.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return torch.stack([luma, (blue - luma) / 1.772 + 128.0, (red - luma) / 1.402 + 128.0], 1)


def to_rgb(colours: Tensor) -> Tensor:
    """The inverse of `to_ycbcr`."""
    luma, blue, red = colours[:, 0], (colours[:, 1] - 128.0) * 1.772, (colours[:, 2] - 128.0) * 1.402
    return torch.stack([luma + red, luma - (0.299 * red + 0.114 * blue) / 0.587, luma + blue], 1)
