"""Images larger than those of the prior: the network sees them in overlapping tiles of its own size."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import ceil
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diffusion_priors.diffusion.priors.base import Prior, checked_size


class Tile(Protocol):
    """What the network sees of an image at once: a prior → the prior that restores the whole image."""

    def __call__(self, prior: Prior) -> Prior: ...


class Whole:
    """The network sees the whole image."""

    def __call__(self, prior: Prior) -> Prior:
        return prior


class Overlapping:
    """Tiles of the prior's size cover an image of `image_size` (height, width); neighbours share at least `overlap` pixels.

    The operator, the noise and the sampler act on the whole image, so that any solver can be used. Objects larger than a tile are
    beyond what the prior knows. `overlap` None is a quarter of the shorter side of a tile.

    Raises ValueError for no image size, for an image smaller than a tile and for an overlap that leaves tiles no room to move.
    """

    def __init__(self, image_size: tuple[int, int] | None = None, overlap: int | None = None) -> None:
        self.image_size, self.overlap = image_size, overlap

    def __call__(self, prior: Prior) -> Prior:
        if self.image_size is None:
            raise ValueError("tiles must cover an image of some size; set tile.image_size=[height,width]")
        (height, width), (rows, columns) = checked_size(self.image_size, "tile.image_size"), prior.size
        if height < rows or width < columns:
            raise ValueError(
                f"an image of {height} x {width} is smaller than a tile, which has the prior's {rows} x {columns}; "
                "set tile.image_size=[height,width], or leave out tile="
            )
        overlap = min(prior.size) // 4 if self.overlap is None else self.overlap
        if not 0 <= overlap < min(prior.size):
            raise ValueError(f"tiles of {rows} x {columns} can share 0 to {min(prior.size) - 1} pixels, got {overlap}; set tile.overlap")
        other = prior.with_network(TiledNetwork(prior.network, prior.size, overlap))
        other.size = height, width
        return other


class TiledNetwork(nn.Module):
    """f(x) = Σ_k w_k f_k(x|_k) / Σ_k w_k over tiles k: the fusion of MultiDiffusion (Bar-Tal et al. 2023) with weights that fade.

    A network's output is x̂0 up to a part that is linear in x, so that the fused output is that of the fused x̂0. w_k falls to zero
    linearly where a tile ends inside the image. One tile is computed at a time; a vector-Jacobian product computes the tile again,
    so that memory grows with the tile and not with the image. `after_tile` is called with the number of tiles done and that of all.
    """

    def __init__(self, network: nn.Module, size: tuple[int, int], overlap: int) -> None:
        super().__init__()
        self.network, self.size, self.overlap = network, size, overlap
        self.after_tile: Callable[[int, int], None] | None = None

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        run = self._again if torch.is_grad_enabled() and x.requires_grad else self.network
        total: Tensor | None = None
        weights = x.new_zeros(x.shape[-2:])
        tiles = list(product(self._places(x.shape[-2], 0), self._places(x.shape[-1], 1)))
        for number, ((top, down), (left, across)) in enumerate(tiles):
            place = (..., slice(top, top + self.size[0]), slice(left, left + self.size[1]))
            window = down.to(x)[:, None] * across.to(x)
            output = run(x[place], t)
            if total is None:
                total = output.new_zeros(*output.shape[:2], *x.shape[-2:])
            total[place] += window * output
            weights[place] += window
            if self.after_tile is not None:
                self.after_tile(number + 1, len(tiles))
        assert total is not None  # there is at least one tile
        return total / weights

    def _again(self, x: Tensor, t: Tensor) -> Tensor:
        return checkpoint(self.network, x, t, use_reentrant=False, preserve_rng_state=False)

    def _places(self, side: int, dimension: int) -> list[tuple[int, Tensor]]:
        """Where tiles begin along one side of the image, and their weights."""
        size = self.size[dimension]
        count = max(1, ceil((side - self.overlap) / (size - self.overlap)))
        starts = [round(k * (side - size) / max(1, count - 1)) for k in range(count)]
        return [(start, self._window(size, start > 0, start + size < side)) for start in starts]

    def _window(self, size: int, fades_in: bool, fades_out: bool) -> Tensor:
        window, ramp = torch.ones(size), torch.arange(1, self.overlap + 1) / (self.overlap + 1)
        if fades_in:
            window[: self.overlap] *= ramp
        if fades_out:
            window[size - self.overlap :] *= ramp.flip(0)
        return window

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the network of a tile."""
        self.network.compile(*args, **kwargs)

    def count(self, height: int, width: int) -> int:
        """The tiles of an image."""
        return len(self._places(height, 0)) * len(self._places(width, 1))
