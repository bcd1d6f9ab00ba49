"""prior=guided_diffusion: a checkpoint of guided-diffusion's UNet. Flags that are not given are read off its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from diffusion_priors.diffusion.checkpoints import Checkpoint, fitting
from diffusion_priors.diffusion.networks.shapes import unet_flags
from diffusion_priors.diffusion.networks.unet import UNet
from diffusion_priors.diffusion.preconditioning import Preconditioning
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.kinds import OF_GUIDED
from diffusion_priors.diffusion.schedules import Schedule
from diffusion_priors.runs.printable import printable


@dataclass(frozen=True)
class Flags:
    """The arguments of `UNet`. None: what the tensors show; `image_size` None is that of the published network with their levels."""

    image_size: int | None = None
    in_channels: int | None = None
    num_channels: int | None = None
    channel_mult: Sequence[float] | None = None
    num_res_blocks: int | None = None
    attention_resolutions: Sequence[int] | None = None
    num_heads: int = 4
    num_head_channels: int = 64
    resblock_updown: bool | None = None
    use_scale_shift_norm: bool | None = None
    new_attention_order: bool = False
    learn_sigma: bool | None = None
    dropout: float = 0.0
    max_groups: int = 32
    min_group_channels: int = 1

    def completed(self, state: Mapping[str, Tensor], prefix: str, side: int | None) -> dict[str, Any]:
        """All flags, for a network whose tensors in `state` begin with `prefix`. Raises ValueError where there is none."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        if len(given) == len(asdict(self)):
            return given
        first = next((name for name in state if name.startswith(prefix) and name.endswith(OF_GUIDED)), None)
        if first is None:
            names = ", ".join(printable(name, 100) for name in list(state)[:3])
            raise ValueError(
                f"it holds no network of guided-diffusion, DDPM or EDM; the names of its tensors begin with {names}; "
                "for your own network choose prior=custom"
            )
        prefix = first.removesuffix(OF_GUIDED)
        own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        return unet_flags(own, self.image_size or side, self.num_head_channels) | given


def from_guided_diffusion(
    checkpoint: Checkpoint,
    schedule: Schedule,
    preconditioning: Preconditioning,
    network: Flags,
    size: tuple[int, int] | None = None,
    pixel_range: tuple[float, float] = (-1.0, 1.0),
    clip: bool = True,
    rescale_timesteps: bool = False,
) -> Prior:
    """The prior in a checkpoint of guided-diffusion, of the `size` (height, width) that its network was made for, unless that is given.

    Raises FileNotFoundError where there is none, ValueError where it is not of this kind.
    """
    state, path = checkpoint.read()
    try:
        flags = network.completed(state, checkpoint.prefix, size[0] if size else None)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    built = UNet(**flags)
    built.load_state_dict(fitting(built, state, path, checkpoint.prefix, checkpoint.ignore))
    size = size or (flags["image_size"], flags["image_size"])
    return Prior(built, schedule, preconditioning, size, flags["in_channels"], pixel_range, clip, None, rescale_timesteps)
