"""prior=training: a checkpoint of train.py, which carries the prior's card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.card import from_card
from diffusion_priors.runs.weights import read_checkpoint


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
    state = content.get("state_dict")
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} carries a card but no tensors of a network; fetch it again")
    return from_card(content["prior"], Path(path), size, clip, lambda: (state, Path(path)))
