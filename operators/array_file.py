"""Arrays of numbers in .npy, .npz or .safetensors, read without running code: parameters of an operator, and measurements."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load
from torch import Tensor

from diffusion_priors.images.formats import not_a_file

LARGEST = 2**31
"""Bytes of a file that is read."""


def read_array(path: str, what: str, key: str = "operator.path", name: str | None = None) -> np.ndarray:
    """The only array in a file, or of several the one called `name`. `what` names it in messages, and `key` what to set.

    Raises ValueError where there is none, it is not of finite numbers, or the file is larger than `LARGEST`.
    """
    arrays = read_arrays(path, what, key)
    if name is not None and name in arrays:
        arrays = {name: arrays[name]}
    if len(arrays) != 1:
        called = "one is wanted" if name is None else f"none is called {name}"
        found = f"it holds {len(arrays)} arrays ({', '.join(sorted(arrays)[:3])}), and {called}"
        raise ValueError(f"cannot read the {what} {path}: {found}; set {key} to a file with one")
    array = next(iter(arrays.values()))
    if array.dtype.kind not in "biufc" or array.size == 0:
        raise ValueError(f"the {what} {path} must be numbers, got shape {array.shape}, {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError(f"the {what} {path} has {np.count_nonzero(~np.isfinite(array))} entries that are not finite")
    return array


def read_arrays(path: str, what: str, key: str = "operator.path") -> dict[str, np.ndarray]:
    """The arrays of any kind in an .npz or .safetensors by their names, or the one in an .npy, whose name is empty.

    Raises ValueError where there is none, or the file is larger than `LARGEST`.
    """
    try:
        if reason := not_a_file(Path(path)):
            raise ValueError(reason)
        if Path(path).stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST // 2**20} MiB")
        return _arrays(path)
    except (
        OSError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        MemoryError,
        RecursionError,
        SyntaxError,
        BadZipFile,
        SafetensorError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"cannot read the {what} {path}: {reason}; set {key} to an .npy or .safetensors file") from error


def read_reals(path: str, what: str, axes: tuple[str, ...], name: str | None = None) -> np.ndarray:
    """float64 with one axis for each of `axes`, which name them in messages. Raises ValueError where the file holds no such numbers."""
    array = read_array(path, what, name=name)
    if array.ndim != len(axes) or array.dtype.kind == "c":
        wanted = f"({', '.join(axes)}{',' if len(axes) == 1 else ''})"
        raise ValueError(f"the {what} {path} must be real numbers {wanted}, got shape {array.shape}, {array.dtype}")
    return array.astype(np.float64)


def read_measurement(path: Path, like: Tensor, channels: int, largest: float = float("inf")) -> tuple[Tensor, bool]:
    """(y, whether it was repeated): the measurement in a file, with the shape and the type of `like`, one row of an operator's y.

    A file with several arrays has it under the name y. Axes of length 1 may be missing. Complex numbers may be a last axis of 2,
    real and imaginary. Where `like` has a first axis for `channels`, a y of one channel is repeated, as a grey image file is.

    Raises ValueError, in one line, where the file cannot be read, has another shape or another kind of numbers, or holds numbers
    that are not finite or whose magnitude is beyond `largest`.
    """
    array = read_array(str(path), "measurement", "measurement or data.degraded", "y")
    dtype = torch.empty(0, dtype=like.dtype).numpy().dtype
    if dtype.kind == "c" and array.dtype.kind == "f" and array.shape[-1:] == (2,):
        array = array[..., 0] + 1j * array[..., 1]
    shape, found = tuple(like.shape), f"{array.shape} {array.dtype}"
    one = (shape[0] // channels, *shape[1:]) if shape[0] % channels == 0 else shape
    wanted = f"{shape}{f' or, for a grey image, {one}' if one != shape else ''} {like.dtype}".replace("torch.", "")
    if array.dtype.kind != dtype.kind or _longer(array.shape) not in (_longer(shape), _longer(one)):
        raise ValueError(f"the measurement {path} is {found}, and the operator gives {wanted}; give it in that shape and the unit of y")
    repeated = _longer(array.shape) != _longer(shape)
    array = np.repeat(array.reshape(one), channels, 0) if repeated else array.reshape(shape)
    with np.errstate(over="ignore"):
        y = array.astype(dtype)
    if not np.isfinite(y).all() or np.abs(y).max() > largest:
        raise ValueError(f"the measurement {path} has values up to {np.abs(array).max():.3g}, far beyond the unit of y; scale it")
    return torch.from_numpy(y), repeated


def _longer(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes longer than 1."""
    return tuple(side for side in shape if side != 1)


def _arrays(path: str) -> dict[str, np.ndarray]:
    kind = Path(path).suffix.lower()
    if kind == ".npy":
        return {"": np.array(np.lib.format.open_memmap(path, mode="r"))}  # what the header promises is not allocated before it is there
    if kind == ".safetensors":
        return load(Path(path).read_bytes())
    if kind != ".npz":
        raise ValueError("its name ends neither in .npy nor in .npz or .safetensors")
    with ZipFile(path) as packed:
        if sum(member.file_size for member in packed.infolist()) > LARGEST:
            raise ValueError(f"it has more than {LARGEST // 2**20} MiB once it is unpacked")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
