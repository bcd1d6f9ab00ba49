"""What a file of weights is, and how that is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffusion_priors.checkpoints.changes import settings
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.kinds import option_for

STATED = {
    "folder": "card.yaml",
    "training": "the card in the checkpoint",
    "diffusers": "the configuration of its scheduler",
}
"""Option → what says how the network was trained. Files without such a thing are read with what is usual for their kind."""
KINDS = {
    "folder": "a prior that train.py exported",
    "training": "a checkpoint of train.py",
    "diffusers": "a pipeline of diffusers",
    "guided_diffusion": "a checkpoint of guided-diffusion",
    "edm": "a converted checkpoint of EDM",
    "ddpm": "a checkpoint of DDPM (pesser, SDEdit)",
    "inverse_bench": "a file of InverseBench",
    "lightning": "a checkpoint of Lightning from another project",
}


@dataclass(frozen=True)
class Fact:
    """One property, its value, and how that is known."""

    name: str
    value: str
    source: str


def facts(path: Path, prior: Prior) -> list[Fact]:
    """What can be said of a prior before it is tried."""
    option = option_for(path).name
    stated = STATED.get(option, "assumed: the file does not say; usual for its kind")
    parameters = sum(parameter.numel() for parameter in prior.network.parameters())
    flags = getattr(prior.network, "flags", {})
    height, width = prior.size
    shapes = "its shapes; the size is usual for them"
    found = [
        Fact("file", KINDS[option], "its names"),
        Fact("network", f"{type(prior.network).__name__}, {parameters:,} parameters", "its names and shapes"),
        Fact("image", f"{height} x {width}, {prior.channels} channels", STATED.get(option, shapes)),
        Fact("variance", "learned" if prior.probe() else "not learned", "the channels of its output"),
    ]
    if "num_head_channels" in flags:
        found.append(Fact("heads", _heads(flags), STATED.get(option, "assumed: shapes do not show it")))
    return found + [Fact(name, value, stated) for name, value in settings(prior).items()]


def _heads(flags: dict) -> str:
    of_size, of_number = flags["num_head_channels"], flags.get("num_heads")
    return f"{of_size} channels each" if of_size != -1 else f"{of_number} at each level"
