"""Per-image random numbers: one generator per image and purpose feeds every draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor


def image_generator(seed: int, *labels: str | int) -> np.random.Generator:
    """A generator whose stream is a function of (seed, labels) alone, through a 128-bit key (Salmon et al. 2011, Philox).

    `labels` name the image, the sample and the purpose ("measurement", "sampling"). NumPy's stream is the same
    on every processor, and a GPU run sees the same masks, kernels and noise as a CPU run; torch's own CPU
    generator would keep only 32 bits of the key, and its normal numbers differ between processors.
    """
    digest = blake2b(repr((seed, labels)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


class ImageRandom:
    """Random numbers for a batch, image b from generator b, so that the batch never changes a draw.

    The first dimension of a draw counts images: particles of an image (B, K, …) come from that image's generator.
    """

    def __init__(self, generators: Sequence[np.random.Generator]) -> None:
        self.generators = list(generators)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal noise shaped (B, …), float32 or float64, typed and placed like `like`; one generator an image."""
        return self._drawn(like, np.random.Generator.standard_normal)

    def uniform(self, like: Tensor) -> Tensor:
        """Numbers in [0, 1) shaped (B, …), float32 or float64, typed and placed like `like`; one generator an image."""
        return self._drawn(like, np.random.Generator.random)

    def _drawn(self, like: Tensor, draw: Callable[..., object]) -> Tensor:
        """Each row of the result filled by `draw` from its own generator."""
        drawn = torch.empty(like.shape, dtype=like.dtype, pin_memory=like.is_cuda)
        rows = drawn.numpy()
        for row, generator in zip(rows, self.generators, strict=True):
            draw(generator, dtype=rows.dtype, out=row)
        return drawn.to(like.device, non_blocking=True)
