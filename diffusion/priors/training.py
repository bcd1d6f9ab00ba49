"""prior=training: a checkpoint of train.py, which carries the prior's card."""

from __future__ import annotations

from pathlib import Path

from diffusion_priors.diffusion.checkpoints import load_strictly
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
    prior = from_card(content["prior"], Path(path), size, clip)
    load_strictly(prior.network, content["state_dict"], Path(path))
    return prior
