"""prior=folder: a folder with weights.safetensors and card.yaml, as train.py exports it."""

from __future__ import annotations

from pathlib import Path

from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.card import from_card
from diffusion_priors.runs.reading.foreign import read_yaml
from diffusion_priors.runs.weights import read_state_dict

WEIGHTS, CARD = "weights.safetensors", "card.yaml"


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
        card = read_yaml(folder / CARD)
    except (ValueError, OSError) as error:
        raise ValueError(f"{folder / CARD} is no prior card: {error}") from error
    return from_card(card, folder / CARD, size, clip, lambda: (read_state_dict(folder / WEIGHTS), folder / WEIGHTS))
