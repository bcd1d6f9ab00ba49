"""A checkpoint of EDM, a pickle, as safetensors: its tensors, and of its settings those that they do not show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file

from diffusion_priors.checkpoints.pickled import Shell, class_name, filled, read_pickle, state_of

SETTINGS = ("sigma_data", "sigma_min", "sigma_max", "img_resolution", "img_channels", "label_dim")


def convert(source: Path, target: Path) -> dict[str, str]:
    """Write the averaged network of a checkpoint of EDM to `target`; → what is noted beside its tensors.

    None of the pickle's code is run. Raises FileNotFoundError, and ValueError where it holds no such network or `target` exists.
    """
    if not source.is_file():
        raise FileNotFoundError(f"no file at {source}")
    if target.suffix != ".safetensors" or target.exists():
        raise ValueError(f"{target} exists, or its name does not end in .safetensors; choose another")
    content = read_pickle(source)
    network = content.get("ema") if isinstance(content, Mapping) else None
    if not isinstance(network, Shell):
        raise ValueError(f"{source} holds no entry 'ema' with a network, as the checkpoints of EDM do")
    state = {name.removeprefix("model."): tensor.contiguous().clone() for name, tensor in state_of(network).items()}
    if not state:
        raise ValueError(f"{source}: its network {class_name(network)} holds no tensors")
    settings = filled(network)
    notes = {"preconditioning": class_name(network)} | {key: str(settings[key]) for key in SETTINGS if key in settings}
    save_file(state, target, notes)
    return notes
