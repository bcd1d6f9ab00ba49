"""A prior: everything needed to get a denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from hashlib import blake2b
from pathlib import Path

import torch
import yaml
from torch import nn

from diffusion_priors.diffusion.checkpoints import Checkpoint, load_strictly
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.networks.unet import UNet
from diffusion_priors.diffusion.preconditioning import X0, Eps, Preconditioning, Score, V
from diffusion_priors.diffusion.schedules import Cosine, Linear, Schedule
from diffusion_priors.runs.weights import read_checkpoint, read_state_dict

WEIGHTS, CARD = "weights.safetensors", "card.yaml"
_SCHEDULES = {"linear": Linear, "cosine": Cosine, "betas": Schedule}
_PRECONDITIONINGS = {kind.name: kind for kind in (Eps, X0, V, Score)}


class Prior:
    """Network, weights, schedule, preconditioning and pixel range of one diffusion prior.

    The network maps (x_t, t) to (B, C, H, W), or (B, 2C, H, W) with learned variance; t is the 0-based index
    into the schedule. `size` is the (height, width) it restores. `pixel_range` is the range of clean images
    the network was trained on; everything outside the denoiser is in [-1, 1]. `clip` clamps x̂0 to that range.

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
    ) -> None:
        low, high = pixel_range
        if not low < high:
            raise ValueError(f"pixel_range must be (low, high) with low < high, got ({low}, {high}); set prior.pixel_range")
        if channels not in (1, 3):
            raise ValueError(f"images have 1 or 3 channels, got {channels}; set prior.channels")
        self.network, self.schedule, self.preconditioning = network, schedule, preconditioning
        self.size, self.channels, self.clip = _checked_size(size), channels, clip
        self.pixel_range = (low, high)
        self.pixel_scale, self.pixel_shift = (high - low) / 2.0, (high + low) / 2.0
        if checkpoint is not None:
            checkpoint.load_into(network)

    @property
    def levels(self) -> list[NoiseLevel]:
        """The schedule's levels in the [-1, 1] units of the images, noisiest last."""
        return [NoiseLevel(lv.t, lv.alpha, lv.sigma / self.pixel_scale) for lv in self.schedule.levels]

    def with_network(self, network: nn.Module) -> Prior:
        """The same prior around another network."""
        other = copy(self)
        other.network = network
        return other

    def describe(self) -> dict:
        """What shapes cannot say, as a card holds it: plain values that `from_folder` builds the prior from again.

        A network that is no UNet of this project is named by its class, and has to be built by whoever loads it.
        """
        kind = type(self.network)
        flags = self.network.flags if isinstance(self.network, UNet) else {"class": f"{kind.__module__}.{kind.__qualname__}"}
        return {
            "network": dict(flags),
            "schedule": self.schedule.describe(),
            "preconditioning": self.preconditioning.name,
            "size": list(self.size),
            "channels": self.channels,
            "pixel_range": list(self.pixel_range),
        }

    def fingerprint(self) -> str:
        """16 hex digits that stand for the network's weights, wherever they were loaded from."""
        digest = blake2b(digest_size=8)
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    @torch.no_grad()
    def probe(self) -> bool:
        """Run the network once on a blank image; True where it has learned variance.

        Raises ValueError where its output does not fit the image.
        """
        device = next(self.network.parameters(), torch.empty(0)).device
        blank = torch.zeros(1, self.channels, *self.size, device=device)
        try:
            output = self.network(blank, torch.zeros(1, dtype=torch.long, device=device))
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


def from_folder(path: str, size: tuple[int, int] | None = None, clip: bool = True) -> Prior:
    """The prior in a folder: `weights.safetensors` and `card.yaml`, the card saying what shapes cannot.

    `size` (height, width) overrides the card's, for networks that run at any size.

    Raises FileNotFoundError where a file is missing, ValueError where the card or the weights do not fit.
    """
    folder = Path(path)
    for name in (WEIGHTS, CARD):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no prior in {folder}: {name} is missing; set prior.path to a folder with {WEIGHTS} and {CARD}")
    try:
        card = yaml.safe_load((folder / CARD).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{folder / CARD} is no prior card: {type(error).__name__} {error}") from error
    prior = _from_card(card, folder / CARD, size, clip)
    load_strictly(prior.network, read_state_dict(folder / WEIGHTS), folder / WEIGHTS)
    return prior


def from_training(path: str, size: tuple[int, int] | None = None, clip: bool = True) -> Prior:
    """The prior in a checkpoint of train.py: its averaged weights, and the card that it carries.

    Raises FileNotFoundError where there is none, ValueError for another kind of file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {path}; set prior.path to a checkpoint of train.py")
    content = read_checkpoint(Path(path))
    if "prior" not in content:
        raise ValueError(
            f"{path} carries no card of its prior, so it is no checkpoint of train.py; "
            f"say what it is: prior=guided_diffusion prior.checkpoint.path={path}"
        )
    prior = _from_card(content["prior"], Path(path), size, clip)
    load_strictly(prior.network, content["state_dict"], Path(path))
    return prior


def _from_card(card: dict, source: Path, size: tuple[int, int] | None, clip: bool) -> Prior:
    """The prior a card describes, its network not yet loaded."""
    try:
        if "class" in card["network"]:
            raise ValueError(
                f"its network is a {card['network']['class']}, which is not built from a file; "
                f"use prior=custom prior.network._target_={card['network']['class']} prior.checkpoint.path=…"
            )
        schedule = dict(card["schedule"])
        prior = Prior(
            network=UNet(**card["network"]),
            schedule=_SCHEDULES[schedule.pop("kind")](**schedule),
            preconditioning=_PRECONDITIONINGS[card["preconditioning"]](),
            size=_pair(card["size"]),
            channels=card.get("channels", 3),
            pixel_range=_pair(card["pixel_range"]),
            clip=clip,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{source} is no prior card: {type(error).__name__} {error}") from error
    if size is not None:
        prior.size = _checked_size(size)
    return prior


def _checked_size(size: Sequence[int]) -> tuple[int, int]:
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"an image's sides must be two positive numbers, got {list(size)}; set prior.size=[height,width]")
    return tuple(size)


def _pair(values: Sequence) -> tuple:
    first, second = values
    return first, second
