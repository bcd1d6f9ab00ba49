"""The flags of a UNet, within bounds."""

from __future__ import annotations

from torch import Tensor

MOST = {
    "image_size": 2**14,
    "num_channels": 2**12,
    "num_res_blocks": 64,
    "num_heads": 2**12,
    "max_groups": 2**12,
    "min_group_channels": 2**12,
}
"""Flags that are at least 1, and at most this. No network is larger, and a card of a stranger could ask for one."""
WIDEST = 2**14
"""Channels of a level."""


def check_sides(x: Tensor, divisor: int, network: str) -> None:
    """Raises ValueError where `network` cannot halve the image x (…, H, W) to 1/`divisor` of its sides."""
    if x.shape[-2] % divisor or x.shape[-1] % divisor:
        raise ValueError(
            f"this {network} halves the image {divisor.bit_length() - 1} times, so its sides must be multiples of {divisor}; "
            f"got {x.shape[-2]} x {x.shape[-1]}; set prior.size"
        )


def check_flags(flags: dict) -> None:
    """Raises ValueError for flags of which no network is made."""
    advice = "check the network's flags"
    for name, most in MOST.items():
        if not 1 <= flags[name] <= most:
            raise ValueError(f"{name} must be between 1 and {most}, got {flags[name]}; {advice}")
    mults, channels = flags["channel_mult"], flags["num_channels"]
    if not 1 <= len(mults) <= 16 or not all(1 <= int(mult * channels) <= WIDEST for mult in mults):
        raise ValueError(f"channel_mult={mults} must be 1 to 16 levels of 1 to {WIDEST} channels; {advice}")
    if not all(side >= 1 for side in flags["attention_resolutions"]) or not (
        flags["num_head_channels"] == -1 or flags["num_head_channels"] >= 1
    ):
        found = f"attention_resolutions={flags['attention_resolutions']}, num_head_channels={flags['num_head_channels']}"
        raise ValueError(f"attention needs positive side lengths and channels, got {found}; {advice}")
    if not 0.0 <= flags["dropout"] < 1.0:
        raise ValueError(f"dropout must lie in [0, 1), got {flags['dropout']}; {advice}")
