"""A trained network → a prior's folder: weights, card, a sheet of samples."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
import yaml
from safetensors.torch import save
from torch import nn

from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.folder import CARD, WEIGHTS
from diffusion_priors.runs.files import write_whole


class Export:
    """The entries of a card that the run cannot know, and whether the weights are stored in half precision.

    `name`, `summary`, `data` (what the images are), `limits` and `licence` are for the users of the prior.
    """

    def __init__(
        self, half: bool = False, name: str = "prior", summary: str = "", data: str = "", limits: str = "", licence: str = "not stated"
    ) -> None:
        self.half, self.name, self.summary, self.data, self.limits, self.licence = half, name, summary, data, limits, licence

    def __call__(self, folder: Path, prior: Prior, training: dict, measure: Callable[[Prior], dict[str, float]]) -> dict:
        """Write weights.safetensors and card.yaml into `folder`; `measure` scores a prior for the card. Returns the card."""
        validation = {"float32": measure(prior)}
        if self.half:
            halved = deepcopy(prior.network).half().float()
            validation["half"] = measure(prior.with_network(halved))
        card = {"name": self.name, "summary": self.summary} | prior.describe()
        card |= {
            "parameters": sum(p.numel() for p in prior.network.parameters()),
            "weights": "half precision, converted to float32 on loading" if self.half else "float32",
            "training": ({"data": self.data} if self.data else {}) | training,
            "validation": validation,
            "limits": self.limits,
            "licence": self.licence,
        }
        write_whole(folder / WEIGHTS, lambda stream: stream.write(save(tensors(prior.network, self.half))))
        text = yaml.safe_dump({key: value for key, value in card.items() if value != ""}, sort_keys=False, allow_unicode=True, width=110)
        write_whole(folder / CARD, lambda stream: stream.write(text.encode()))
        return card


def tensors(network: nn.Module, half: bool) -> dict[str, torch.Tensor]:
    """A network's state dict on the CPU, contiguous. With `half`, floating-point tensors are stored in half precision."""

    def stored(tensor: torch.Tensor) -> torch.Tensor:
        rounded = tensor.half() if half and tensor.is_floating_point() else tensor
        return rounded.detach().cpu().contiguous().clone()

    return {name: stored(tensor) for name, tensor in network.state_dict().items()}
