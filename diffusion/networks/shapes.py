"""The flags of a network, read off the shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

SIZES = {
    (0.5, 1, 1, 2, 2, 4, 4): 512,
    (1, 1, 2, 2, 4, 4): 256,
    (1, 1, 2, 3, 4): 128,
    (1, 2, 3, 4): 64,
    (1, 2, 2, 2): 32,
}
"""channel_mult → side of the images, as the published networks have it. Shapes do not show the size."""


def unet_flags(state: Mapping[str, Tensor], image_size: int | None = None, num_head_channels: int = 64) -> dict[str, Any]:
    """The arguments of `networks.unet.UNet` for tensors with the names of guided-diffusion.

    Shapes show neither the size of the images nor the number of heads: `image_size` (None: that of the published network with
    these levels) and `num_head_channels` say so.

    Raises ValueError where names or shapes are not those of such a network, and where the size is not known.
    """
    try:
        base = state["time_embed.0.weight"].shape[1]
        blocks = _count(state, "output_blocks")
        ups = [i for i in range(blocks) if _resamples(state, f"output_blocks.{i}")]
        levels = len(ups) + 1
        each = blocks // levels
        last = [f"input_blocks.{1 + level * each}" for level in range(levels)]
        mults = [_plain(state[f"{block}.0.out_layers.3.weight"].shape[0] / base) for block in last]
        given, made = state["input_blocks.0.0.weight"].shape[1], state["out.2.weight"].shape[0]
        embedded, wide = state["input_blocks.1.0.emb_layers.1.weight"].shape[0], state["input_blocks.1.0.out_layers.3.weight"].shape[0]
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"these are not the tensors of guided-diffusion's UNet: {error} is not among them") from error
    image_size = image_size or published_size(mults)
    return {
        "image_size": image_size,
        "in_channels": given,
        "num_channels": base,
        "channel_mult": mults,
        "num_res_blocks": each - 1,
        "attention_resolutions": [image_size // 2**level for level in range(levels) if f"{last[level]}.1.qkv.weight" in state],
        "num_head_channels": num_head_channels,
        "resblock_updown": levels == 1 or f"input_blocks.{each}.0.op.weight" not in state,
        "use_scale_shift_norm": embedded == 2 * wide,
        "learn_sigma": made == 2 * given,
    }


def published_size(mults: Sequence[float]) -> int:
    """The side of the images of the published network with these levels. Raises ValueError where there is none."""
    if tuple(mults) not in SIZES:
        raise ValueError(f"the size of the images is not known for channel_mult={mults}; set prior.size=[height,width]")
    return SIZES[tuple(mults)]


def _count(state: Mapping[str, Tensor], part: str) -> int:
    return len({name.split(".")[1] for name in state if name.startswith(f"{part}.")})


def _resamples(state: Mapping[str, Tensor], block: str) -> bool:
    """Whether a block of the decoder ends with a residual block or a convolution that doubles the image."""
    return any(f"{block}.{i}.{layer}.weight" in state for i in (1, 2) for layer in ("in_layers.0", "conv"))


def _plain(number: float) -> float:
    return int(number) if number == int(number) else number
