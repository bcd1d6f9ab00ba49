"""A prior: everything needed to get a denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from hashlib import blake2b

import torch
from torch import nn

from diffusion_priors.diffusion.checkpoints import Checkpoint
from diffusion_priors.diffusion.preconditioning import Preconditioning, RescaledTime
from diffusion_priors.diffusion.schedules import Schedule

MOST_PIXELS = 2**24
"""4096 x 4096, of one image that a network restores as a whole."""


class Prior:
    """Network, weights, schedule, preconditioning and pixel range of one diffusion prior.

    The network maps (x_t, t) to (B, C, H, W), or (B, 2C, H, W) with learned variance; t is the 0-based index
    into the schedule. `size` is the (height, width) it restores. `pixel_range` is the range of clean images
    the network was trained on; everything outside the denoiser is in [-1, 1]. `clip` clamps x̂0 to that range.
    With `rescale_timesteps` the network is fed t · 1000/T for a schedule of T steps, as with guided-diffusion's flag.

    Raises ValueError for values out of bounds and whatever `Checkpoint` raises for the weights.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        preconditioning: Preconditioning,
        size: tuple[int, int] = (64, 64),
        channels: int = 3,
        pixel_range: tuple[float, float] = (-1.0, 1.0),
        clip: bool = True,
        checkpoint: Checkpoint | None = None,
        rescale_timesteps: bool = False,
    ) -> None:
        low, high = pixel_range
        if not low < high:
            raise ValueError(f"pixel_range must be (low, high) with low < high, got ({low}, {high}); set prior.pixel_range")
        if channels not in (1, 3):
            raise ValueError(f"images have 1 or 3 channels, got {channels}; set prior.channels")
        self.network, self.schedule, self.preconditioning = network, schedule, preconditioning
        self.rescale_timesteps = rescale_timesteps
        if rescale_timesteps:
            self.preconditioning = RescaledTime(preconditioning, 1000.0 / _length(schedule))
        self.size, self.channels, self.clip = checked_size(size), channels, clip
        self.pixel_range = (low, high)
        self.pixel_scale, self.pixel_shift = (high - low) / 2.0, (high + low) / 2.0
        if checkpoint is not None:
            checkpoint.load_into(network)

    @property
    def image_schedule(self) -> Schedule:
        """The schedule in the [-1, 1] units of images."""
        return self.schedule.rescaled(self.pixel_scale)

    def with_network(self, network: nn.Module) -> Prior:
        """The same prior around another network."""
        other = copy(self)
        other.network = network
        return other

    def describe(self) -> dict:
        """What shapes cannot say, as a card holds it: plain values from which `from_card` builds the prior again.

        A network without `flags`, its constructor's arguments, is named by its class: whoever loads it must build it.
        """
        kind = type(self.network)
        flags = getattr(self.network, "flags", {"class": f"{kind.__module__}.{kind.__qualname__}"})
        return {
            "network": dict(flags),
            "schedule": self.schedule.describe(),
            "preconditioning": self.preconditioning.describe(),
            "size": list(self.size),
            "channels": self.channels,
            "pixel_range": list(self.pixel_range),
        } | ({"rescale_timesteps": True} if self.rescale_timesteps else {})

    def fingerprint(self) -> str:
        """16 hex digits that stand for the network's weights, wherever they were loaded from."""
        digest = blake2b(digest_size=8)
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    @torch.no_grad()
    def probe(self) -> bool:
        """Run the network once on zeros; True where it has learned variance.

        Raises ValueError where its output does not fit the image.
        """
        device = next(self.network.parameters(), torch.empty(0)).device
        zeros = torch.zeros(1, self.channels, *self.size, device=device)
        x, t = self.preconditioning.inputs(zeros, self.schedule.discretised()[0])
        try:
            output = self.network(x, torch.as_tensor(t, device=device).expand(1))
        except (RuntimeError, TypeError, IndexError) as error:
            raise ValueError(
                f"the prior's network cannot take a {self.channels} x {self.size[0]} x {self.size[1]} image and t: "
                f"{str(error).splitlines()[0]}; check prior.size, prior.channels and the network's flags"
            ) from error
        if not isinstance(output, torch.Tensor):
            raise ValueError(f"the prior's network must return a tensor, it gave a {type(output).__name__}; wrap it in a module that does")
        fits = [(1, c, *self.size) for c in (self.channels, 2 * self.channels)]
        if tuple(output.shape) not in fits:
            raise ValueError(
                f"the prior's network gave {tuple(output.shape)} for an image of {fits[0]}; it must give {fits[0]}, "
                f"or {fits[1]} with learned variance; check prior.channels and the network's flags"
            )
        return output.shape[1] == 2 * self.channels


def checked_size(size: Sequence[int], key: str = "prior.size") -> tuple[int, int]:
    """(height, width). Raises ValueError, naming `key`, for anything else than two positive whole numbers and for images too large."""
    if len(size) != 2 or not all(isinstance(side, int) for side in size) or min(size) < 1:
        raise ValueError(f"an image's sides must be two positive whole numbers, got {list(size)}; set {key}=[height,width]")
    height, width = size
    if height * width > MOST_PIXELS:
        raise ValueError(f"an image has at most {MOST_PIXELS} pixels here, got {height} x {width}; set {key}=[height,width]")
    return height, width


def _length(schedule: Schedule) -> int:
    """T of a discrete schedule. Raises ValueError for a continuous one."""
    if schedule.table is None:
        raise ValueError(
            "rescale_timesteps is for a schedule with a number of steps, and this one is continuous; set prior.rescale_timesteps=false"
        )
    return len(schedule.table)
