"""Parameters of an operator from a file: arrays of numbers in .npy, .npz or .safetensors, read without running code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from diffusion_priors.images.formats import not_a_file

LARGEST = 2**31
"""Bytes of a file that is read."""


def read_array(path: str, what: str, key: str = "operator.path") -> np.ndarray:
    """The array in an .npy, or the only one in an .npz or .safetensors. `what` names it in messages, and `key` what to set.

    Raises ValueError where there is none, it is not of finite numbers, or the file is larger than `LARGEST`.
    """
    try:
        if reason := not_a_file(Path(path)):
            raise ValueError(reason)
        if Path(path).stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST // 2**20} MiB")
        array = _only_array(path)
    except (OSError, EOFError, KeyError, TypeError, ValueError, MemoryError, SyntaxError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"cannot read the {what} {path}: {reason}; set {key} to an .npy or .safetensors file") from error
    if array.dtype.kind not in "biufc" or array.size == 0:
        raise ValueError(f"the {what} {path} must be numbers, got shape {array.shape}, {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError(f"the {what} {path} has {np.count_nonzero(~np.isfinite(array))} entries that are not finite")
    return array


def read_vector(path: str, what: str) -> np.ndarray:
    """(n,) float64. Raises ValueError where the file holds no vector of real numbers."""
    array = read_array(path, what)
    if array.ndim != 1 or array.dtype.kind == "c":
        raise ValueError(f"the {what} {path} must be a vector of real numbers, got shape {array.shape}, {array.dtype}")
    return array.astype(np.float64)


def _only_array(path: str) -> np.ndarray:
    kind = Path(path).suffix.lower()
    if kind == ".npy":
        return np.array(np.lib.format.open_memmap(path, mode="r"))  # what the header promises is not allocated before it is there
    if kind == ".safetensors":
        arrays = load(Path(path).read_bytes())
    elif kind == ".npz":
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    else:
        raise ValueError("its name ends neither in .npy nor in .npz or .safetensors")
    if len(arrays) != 1:
        raise ValueError(f"it holds {len(arrays)} arrays ({', '.join(sorted(arrays)[:3])}), and one is wanted")
    return next(iter(arrays.values()))
