"""prior=inverse_bench: the FFHQ network of InverseBench, that of guided-diffusion inside its VPPrecond."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from diffusion_priors.diffusion.preconditioning import Eps
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.recognised import recognised
from diffusion_priors.diffusion.schedules import Schedule
from diffusion_priors.runs.weights import read_checkpoint

ENTRIES = ("ema", "net")


def from_inverse_bench(
    path: str, schedule: Schedule, size: tuple[int, int] | None = None, num_head_channels: int = 64, clip: bool = True
) -> Prior:
    """The prior in a file of InverseBench: ε̂ by the index into `schedule`.

    InverseBench feeds 999 t, t a continuous time of its VP schedule, which is up to 2.8 indices late; this prior feeds the index that
    the network was trained on.

    Raises FileNotFoundError where there is none, ValueError where it is of another kind.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {path}; set prior.path to a file of InverseBench")
    content = read_checkpoint(Path(path))
    entry = next((content[key] for key in ENTRIES if isinstance(content.get(key), Mapping)), None)
    if entry is None or not all(isinstance(value, Tensor) for value in entry.values()):
        raise ValueError(f"{path} has no entry {' or '.join(ENTRIES)} with tensors, as the files of InverseBench do")
    network, side = recognised(entry, Path(path), size[0] if size else None, num_head_channels)
    return Prior(network, schedule, Eps(), size or (side, side), network.flags["in_channels"], clip=clip)
