"""What a file or folder of weights is, by its names alone: nothing is loaded, no code is run, and no torch is needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from diffusion_priors.runs.reading.tensor_names import names_in


class Option(NamedTuple):
    """The option of conf/prior that reads a file, and the key that its path goes to."""

    name: str
    key: str = "prior.path"


OF_EDM, OF_DDPM, OF_GUIDED = "_conv.weight", "temb.dense.0.weight", "input_blocks.0.0.weight"
"""Names by which the network of each is known."""


def option_for(path: Path) -> Option:
    """The option that reads what is at `path`; that of guided-diffusion's checkpoints for a file that nothing else is known of."""
    if path.is_dir():
        return Option("diffusers" if is_pipeline(path) else "folder")
    names = names_in(path)
    if "prior" in names and path.suffix == ".ckpt":
        return Option("training")
    if "pytorch-lightning_version" in names:
        return Option("training" if "prior" in names else "lightning")
    if path.suffix == ".pkl" or any(_is_edm(name) for name in names):
        return Option("edm")
    if any(name.endswith(OF_DDPM) for name in names):
        return Option("ddpm")
    if _is_inverse_bench(names):
        return Option("inverse_bench")
    if path.suffix == ".ckpt" and not names:
        return Option("training")
    return Option("guided_diffusion", "prior.checkpoint.path")


def is_pipeline(folder: Path) -> bool:
    """Whether a folder is one of diffusers: its parts, or a network's configuration, and no card of this project."""
    return not (folder / "card.yaml").is_file() and any((folder / name).is_file() for name in ("model_index.json", "config.json"))


def _is_edm(name: str) -> bool:
    part = name.removeprefix("model.")
    return part.startswith("enc.") and part.endswith(OF_EDM)


def _is_inverse_bench(names: Sequence[str]) -> bool:
    """An entry "ema" or "net" with guided-diffusion's network under "model."."""
    return f"model.{OF_GUIDED}" in names and bool({"ema", "net"} & set(names))
