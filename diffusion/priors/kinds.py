"""What a file or folder of weights is, by its names alone: nothing is loaded, and no torch."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Option(NamedTuple):
    """The option of conf/prior that reads a file, and the key that its path goes to."""

    name: str
    key: str = "prior.path"


def option_for(path: Path) -> Option:
    """The option that reads what is at `path`; that of guided-diffusion's checkpoints for a file that nothing else is known of."""
    if path.is_dir():
        return Option("diffusers" if is_pipeline(path) else "folder")
    if path.suffix == ".ckpt":
        return Option("training")
    return Option("guided_diffusion", "prior.checkpoint.path")


def is_pipeline(folder: Path) -> bool:
    """Whether a folder is one of diffusers: its parts, or a network's configuration, and no card of this project."""
    return not (folder / "card.yaml").is_file() and any((folder / name).is_file() for name in ("model_index.json", "config.json"))
