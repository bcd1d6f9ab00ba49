"""prior=edm: a network of NVlabs/edm as safetensors, with the preconditioning of Karras et al. 2022."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from diffusion_priors.diffusion.checkpoints import fitting
from diffusion_priors.diffusion.networks.edm_shapes import edm_flags, edm_network, is_edm
from diffusion_priors.diffusion.preconditioning import EDM
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.schedules import VE
from diffusion_priors.runs.values import shown
from diffusion_priors.runs.weights import read_state_dict

SUPPORTED = "EDMPrecond"


def from_edm(
    path: str,
    size: tuple[int, int] | None = None,
    clip: bool = True,
    data_std: float | None = None,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> Prior:
    """The prior in a converted checkpoint of EDM: DDPM++, NCSN++ or ADM, on images in [-1, 1].

    `data_std` is the deviation of clean pixels that it was trained with; None: what the file says, else 0.5. `sigma_min` and
    `sigma_max` bound the levels, as in the paper's Table 1.

    Raises FileNotFoundError where there is none, ValueError for a pickle and where the file is of another kind.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}; set prior.path to a converted checkpoint of EDM")
    if file.suffix != ".safetensors":
        raise ValueError(
            f"{path} is refused: the checkpoints of EDM are pickles, which run code of their authors as they are opened. Convert it once: "
            f"python -m diffusion_priors.checkpoints convert {path} {file.with_suffix('.safetensors')}. That reads the tensors and runs "
            "none of the code"
        )
    state, notes = read_state_dict(file), _notes(file)
    state = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    if not is_edm(state):
        raise ValueError(f"{path} holds no network of EDM: its names begin with {', '.join(list(state)[:3])}")
    kind = notes.get("preconditioning", SUPPORTED)
    if kind != SUPPORTED:
        raise ValueError(f"{path} has the preconditioning {shown(kind)}, and {SUPPORTED} alone is supported")
    flags = edm_flags(state)
    network = edm_network(state)(**flags)
    network.load_state_dict(fitting(network, state, file))
    deviation = data_std if data_std is not None else float(notes.get("sigma_data", 0.5))
    side = flags["image_size"]
    return Prior(network, VE(sigma_min, sigma_max), EDM(deviation), size or (side, side), flags["in_channels"], clip=clip)


def _notes(file: Path) -> dict[str, str]:
    try:
        with safe_open(file, "pt") as content:
            return content.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} is damaged or no checkpoint: {error}; fetch it again") from error
