"""A prior as a folder that the library diffusers loads: a DDPMPipeline of a UNet2DModel and a DDPMScheduler."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from diffusion_priors.checkpoints.diffusers_names import renamed
from diffusion_priors.diffusion.networks.diffusers_unet import DiffusersUNet
from diffusion_priors.diffusion.networks.unet import UNet
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.schedules import Betas, Cosine, Linear
from diffusion_priors.runs.values import shown

INDEX = {"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}
PREDICTIONS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}


def export_diffusers(prior: Prior, folder: Path) -> None:
    """Write `prior` to `folder` as a pipeline of diffusers with the same network, schedule and clamping.

    Raises ValueError that names what UNet2DModel and DDPMScheduler have no equal for, before anything is written.
    """
    scheduler = {"_class_name": "DDPMScheduler"} | _scheduler(prior)
    config, state = _network(prior)
    for name, content in (
        ("unet/config.json", {"_class_name": "UNet2DModel"} | config),
        ("scheduler/scheduler_config.json", scheduler),
        ("model_index.json", INDEX),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / "unet" / "diffusion_pytorch_model.safetensors", {"format": "pt"})


def _scheduler(prior: Prior) -> dict[str, Any]:
    """The configuration of the DDPMScheduler that samples from `prior`."""
    schedule, learned = prior.schedule, prior.probe()
    if not isinstance(schedule, Betas):
        raise _no_equal(f"the schedule {schedule.kind}: its pipeline is one of betas")
    if prior.preconditioning.name not in PREDICTIONS:
        raise _no_equal(f"preconditioning={prior.preconditioning.name}: it knows {', '.join(PREDICTIONS)}")
    if prior.pixel_range != (-1.0, 1.0):
        raise _no_equal(f"images in {list(prior.pixel_range)}: its images are in [-1, 1]")
    if prior.rescale_timesteps and len(schedule.table) != 1000:
        raise _no_equal(f"rescaled timesteps: it feeds t, and this network is fed t · 1000/{len(schedule.table)}")
    return {
        **_betas(schedule),
        "num_train_timesteps": len(schedule.table),
        "variance_type": "learned_range" if learned else "fixed_small",
        "prediction_type": PREDICTIONS[prior.preconditioning.name],
        "clip_sample": prior.clip,
        "clip_sample_range": 1.0,
        "timestep_spacing": "leading",
        "steps_offset": 0,
    }


def _betas(schedule: Betas) -> dict[str, Any]:
    if isinstance(schedule, Linear):
        return {"beta_schedule": "linear", "beta_start": schedule.beta_start, "beta_end": schedule.beta_end}
    if isinstance(schedule, Cosine) and schedule.betas == Cosine(schedule.steps).betas:
        return {"beta_schedule": "squaredcos_cap_v2"}
    return {"trained_betas": schedule.betas}


def _network(prior: Prior) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the tensors of the UNet2DModel that equals the prior's network."""
    network = prior.network
    size: dict[str, Any] = {"sample_size": prior.size[0] if prior.size[0] == prior.size[1] else list(prior.size)}
    if isinstance(network, DiffusersUNet):
        config: dict[str, Any] = network.config
        return config | size, network.unet.state_dict()
    if type(network) is not UNet:
        raise _no_equal(f"the network {type(network).__name__}: it knows this project's UNet and its own UNet2DModel")
    return unet_config(network) | size, renamed(network)


def unet_config(network: UNet) -> dict[str, Any]:
    """The arguments of the UNet2DModel that computes the same as `network`. Raises ValueError where there is none."""
    flags = network.flags
    mults, levels = flags["channel_mult"], range(len(flags["channel_mult"]))
    widths = [int(mult * flags["num_channels"]) for mult in mults]
    if mults[0] != 1:
        raise _no_equal(f"channel_mult={shown(mults)}: its first level has as many channels as its time embedding, so a 1 comes first")
    groups = {layer.num_groups for layer in network.modules() if isinstance(layer, nn.GroupNorm)}
    if len(groups) > 1:
        raise _no_equal(f"groups of normalisation that differ between layers: this network has {sorted(groups)} (min_group_channels)")
    attended = [flags["image_size"] // 2**level in flags["attention_resolutions"] for level in levels]
    plain, resample = ("Resnet{}sampleBlock2D", "resnet") if flags["resblock_updown"] else ("{}Block2D", "conv")
    blocks = {way: [f"Attn{way}Block2D" if here else plain.format(way) for here in attended] for way in ("Down", "Up")}
    return {
        "in_channels": flags["in_channels"],
        "out_channels": flags["in_channels"] * (2 if flags["learn_sigma"] else 1),
        "block_out_channels": widths,
        "layers_per_block": flags["num_res_blocks"],
        "down_block_types": blocks["Down"],
        "up_block_types": blocks["Up"][::-1],
        "downsample_type": resample,
        "upsample_type": resample,
        "downsample_padding": 1,
        "dropout": flags["dropout"],
        "act_fn": "silu",
        "attention_head_dim": _head_channels(flags, [width for width, here in zip(widths, attended, strict=True) if here], widths[-1]),
        "norm_num_groups": next(iter(groups)),
        "attn_norm_num_groups": next(iter(groups)),
        "norm_eps": 1e-5,
        "resnet_time_scale_shift": "scale_shift" if flags["use_scale_shift_norm"] else "default",
        "time_embedding_type": "positional",
        "flip_sin_to_cos": True,
        "freq_shift": 0,
    }


def _head_channels(flags: dict[str, Any], attended: list[int], middle: int) -> int:
    if flags["num_head_channels"] != -1:
        return flags["num_head_channels"]
    sizes = {width // flags["num_heads"] for width in (*attended, middle)}
    if len(sizes) > 1:
        raise _no_equal(f"num_heads={flags['num_heads']} at levels of different width: its heads have one number of channels")
    return sizes.pop()


def _no_equal(what: str) -> ValueError:
    return ValueError(f"diffusers has no equal for {what}; this prior cannot be exported to it")
