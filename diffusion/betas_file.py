"""schedule=betas: a schedule of one's own, from a list or a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from diffusion_priors.diffusion.schedules import Betas
from diffusion_priors.runs.reading.foreign import parse_json, read_text


def own_betas(betas: list[float] | str) -> Betas:
    """The schedule of β_0 … β_{T−1}: a list of numbers, or a file of one.

    The file is a NumPy array (.npy), numbers separated by white space or commas (.txt, .csv), a list (.json), or the only
    tensor of a .safetensors. Raises ValueError for another file and for betas outside (0, 1), OSError for one that cannot be read.
    """
    return Betas(_read(Path(betas)) if isinstance(betas, str) else betas)


def _read(path: Path) -> list[float]:
    if path.suffix not in READERS:
        raise ValueError(f"{path} holds no betas that can be read; set schedule.betas to a list or a file of {', '.join(READERS)}")
    if not path.is_file():
        raise FileNotFoundError(f"no file of betas at {path}; set schedule.betas")
    try:
        values = np.asarray(READERS[path.suffix](path), dtype=np.float64)
    except (ValueError, TypeError, OSError, EOFError) as error:
        raise ValueError(f"{path} is damaged or holds no betas: {(str(error).splitlines() or ['no numbers'])[0]}") from error
    if values.ndim != 1:
        raise ValueError(f"betas are one list of numbers, and {path} holds an array of shape {values.shape}; set schedule.betas")
    return values.tolist()


def _only_tensor(path: Path) -> Any:
    tensors = load_file(path)
    if len(tensors) != 1:
        raise ValueError(f"it holds {len(tensors)} tensors instead of one")
    return next(iter(tensors.values()))


def _numbers(path: Path) -> list[float]:
    return [float(number) for number in read_text(path).replace(",", " ").split()]


READERS = {
    ".npy": lambda path: np.load(path, allow_pickle=False),
    ".txt": _numbers,
    ".csv": _numbers,
    ".json": lambda path: parse_json(read_text(path)),
    ".safetensors": _only_tensor,
}
"""Kind of file → how it is read. None of them runs code of the file."""
