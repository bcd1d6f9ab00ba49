"""Per-image random numbers: one generator per image and purpose feeds every draw."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor


def image_generator(seed: int, *labels: str | int) -> torch.Generator:
    """A CPU generator whose stream is a function of (seed, labels) alone.

    `labels` name the image, the sample and the purpose ("measurement", "sampling"). The stream
    lives on the CPU, so a GPU run sees the same masks, kernels and noise as a CPU run.
    """
    text = "\x1f".join(map(str, (seed, *labels)))
    state = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)
    return torch.Generator().manual_seed(state)


class ImageNoise:
    """z_b ~ N(0, I), image b from generator b, so a batch never changes a draw."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = list(generators)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal noise shaped (B, …), typed and placed like `like`; B must match the generators."""
        z = torch.empty(like.shape, dtype=like.dtype, pin_memory=like.is_cuda)
        for image, generator in zip(z, self.generators, strict=True):
            torch.randn(image.shape, generator=generator, out=image)
        return z.to(like.device, non_blocking=True)
