"""UNet2DModel of the library diffusers as a network of this project. The library is an extra: diffusion-priors[diffusers]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from diffusion_priors.runs.values import check_values, shown

LARGEST = 2**14
LONGEST = 16
"""Of a number, and of a list, in a configuration: no such network is larger, and a stranger's file could ask for one."""


class DiffusersUNet(nn.Module):
    """The output of diffusers' UNet2DModel for x_t and t.

    Input (B, in_channels, H, W) and t (B,), output (B, out_channels, H, W). `config` are the arguments of UNet2DModel, as its
    config.json holds them; entries whose names begin with "_" are the library's own notes.
    `flags` are this constructor's arguments with the network's `kind`, as a prior's card holds them.

    Raises ImportError without the library, ValueError for a configuration of which it builds no unconditional network.
    """

    kind = "diffusers_unet"

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        config = {key: value for key, value in config.items() if not key.startswith("_")}
        _check(config)
        self.unet = _built(config)
        self.config = {key: _plain(value) for key, value in config.items()}
        self.flags = {"kind": self.kind, "config": self.config}

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.unet(x, t, return_dict=False)[0]


def _built(config: dict[str, Any]) -> nn.Module:
    UNet2DModel = unet_class()
    check_values(config, UNet2DModel.__init__, "config")
    try:
        return UNet2DModel(**config)
    except (ValueError, TypeError, KeyError, IndexError, ZeroDivisionError, RuntimeError) as error:
        raise ValueError(f"diffusers builds no network of this configuration: {error}") from error


def unet_class() -> Any:
    """diffusers.UNet2DModel. Raises ImportError that says how to install it."""
    try:
        from diffusers import UNet2DModel
    except ImportError as error:
        raise ImportError("a prior of diffusers needs that library; pip install 'diffusion-priors[diffusers]'") from error
    return UNet2DModel


def _check(config: Mapping[str, Any]) -> None:
    """Raises ValueError for sizes out of bounds, and for a network that wants a class."""
    for key, value in config.items():
        numbers = value if isinstance(value, (list, tuple)) else [value]
        if len(numbers) > LONGEST or any(isinstance(number, (int, float)) and not -LARGEST <= number <= LARGEST for number in numbers):
            raise ValueError(f"config.{key}={shown(value)} is out of bounds: at most {LONGEST} numbers of at most {LARGEST}")
    for key in ("class_embed_type", "num_class_embeds"):
        if config.get(key) is not None:
            raise ValueError(
                f"the network is class-conditional (config.{key}={shown(config[key])}): its score is of one class, not of all images; "
                "use an unconditional checkpoint"
            )
    if config.get("time_embedding_type") == "learned":
        raise ValueError("config.time_embedding_type=learned knows whole indices alone and is not supported; use another checkpoint")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
