"""prior=diffusers: a folder of the library diffusers, or the name of one on its hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_priors.diffusion.checkpoints import fitting
from diffusion_priors.diffusion.networks.diffusers_unet import DiffusersUNet
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.diffusers_scheduler import VARIANCE_EXPLODING, Training, read_scheduler
from diffusion_priors.diffusion.priors.hub import folder_or_hub
from diffusion_priors.runs.reading.foreign import parse_json, read_text
from diffusion_priors.runs.values import shown
from diffusion_priors.runs.weights import read_state_dict

INDEX, NETWORK, SCHEDULER = "model_index.json", "config.json", "scheduler_config.json"
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
FILES = ("*.json", *(f"*{name}" for name in WEIGHTS))
"""What is fetched of a pipeline on the hub: no file that could hold code."""
RENAMED = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
"""Names of the tensors of attention in files of old versions, and those of today."""


def from_diffusers(
    path: str, size: tuple[int, int] | None = None, clip: bool | None = None, revision: str | None = None, cache: str | None = None
) -> Prior:
    """The prior in a pipeline of diffusers: an unconditional UNet2DModel and the configuration of its scheduler.

    `path` is a folder, or "owner/name" on the hub at `revision` (a branch, tag or commit), kept in the folder `cache` (null: that of
    huggingface_hub). `size` (height, width) overrides the network's. `clip` is whether x̂0 is clamped; None takes the scheduler's word.

    Raises FileNotFoundError where a file is missing, ValueError where network, scheduler and weights do not fit each other.
    """
    folder = folder_or_hub(path, FILES, revision, cache)
    index = _read(folder / INDEX) if (folder / INDEX).is_file() else {}
    _check_index(index, folder)
    network_folder, scheduler_folder = (_part(folder, name, file) for name, file in (("unet", NETWORK), ("scheduler", SCHEDULER)))
    config, scheduler = _read(network_folder / NETWORK), _read(scheduler_folder / SCHEDULER)
    try:
        training = read_scheduler(scheduler)
        _check_agreement(config, training, scheduler)
        with torch.device("meta"):
            network = DiffusersUNet(config)
        prior = Prior(
            network,
            training.schedule,
            training.preconditioning,
            size or _size(config),
            config.get("in_channels", 3),
            training.pixel_range,
            training.clip if clip is None else clip,
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder} is no prior: {error}") from error
    state = fitting(network, *_weights(network_folder))
    prior.network = DiffusersUNet(config)
    prior.network.load_state_dict(state)
    return prior


def _check_index(index: Mapping[str, Any], folder: Path) -> None:
    parts = {name: value for name, value in index.items() if not name.startswith("_") and isinstance(value, list)}
    network = parts.get("unet", [None, "UNet2DModel"])[-1]
    further = sorted(set(parts) - {"unet", "scheduler"})
    if network != "UNet2DModel" or further:
        found = f"its network is {shown(network)}" + (f", and it has {', '.join(further)}" if further else "")
        raise ValueError(f"{folder} is no unconditional pipeline of images: {found}; a UNet2DModel and a scheduler are needed")


def _check_agreement(config: Mapping[str, Any], training: Training, scheduler: Mapping[str, Any]) -> None:
    """Raises ValueError where the network's configuration and the scheduler's contradict each other."""
    if config.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise ValueError(f"its network is {shown(config['_class_name'])}; a UNet2DModel is needed")
    kind, embedding = scheduler.get("_class_name"), config.get("time_embedding_type", "positional")
    wants, feeds = ("sigma" if one else "an index" for one in (embedding == "fourier", kind == VARIANCE_EXPLODING))
    if wants != feeds:
        raise ValueError(
            f"network and scheduler contradict each other: time_embedding_type={embedding} is for a network that is fed {wants}, "
            f"and {kind} feeds {feeds}"
        )
    given, made, variance = config.get("in_channels", 3), config.get("out_channels", 3), scheduler.get("variance_type", "fixed_small")
    if made != (2 * given if training.learned_variance else given):
        raise ValueError(
            f"network and scheduler contradict each other: {made} channels out for {given} in, and variance_type={shown(variance)}; "
            "learned_range is for twice as many, the others for as many"
        )


def _size(config: Mapping[str, Any]) -> tuple[int, int]:
    side = config.get("sample_size")
    if side is None:
        raise ValueError("the network's configuration has no sample_size; set prior.size=[height,width]")
    return (side, side) if isinstance(side, int) else tuple(side)


def _part(folder: Path, name: str, file: str) -> Path:
    """The folder of a part: its own, or, in files of old versions, the pipeline's."""
    for place in (folder / name, folder):
        if (place / file).is_file():
            return place
    raise FileNotFoundError(f"no pipeline of diffusers in {folder}: {name}/{file} is missing; set prior.path to the folder of one")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(read_text(path))
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is no configuration: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no configuration: it holds {shown(content)}")
    return content


def _weights(folder: Path) -> tuple[dict[str, Tensor], Path]:
    """The tensors of UNet2DModel under the names that the network here has."""
    for path in (folder / name for name in WEIGHTS):
        if path.is_file():
            return {f"unet.{_renamed(name)}": tensor for name, tensor in read_state_dict(path).items()}, path
    others = ", ".join(sorted(path.name for path in folder.glob("*.bin"))) or "none of another kind"
    raise FileNotFoundError(
        f"no {WEIGHTS[0]} in {folder} (found: {others}); save the pipeline again with diffusers: pipeline.save_pretrained(FOLDER)"
    )


def _renamed(name: str) -> str:
    for old, new in RENAMED.items() if ".attentions." in name else ():
        name = name.replace(old, new)
    return name
