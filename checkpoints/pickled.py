"""The tensors in a pickle, without its code: names that a pickle calls are looked up in a list, and nothing else is called."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

REBUILT: dict[tuple[str, str], Callable] = {
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch.storage", "_load_from_bytes"): lambda data: torch.load(io.BytesIO(data), map_location="cpu", weights_only=True),
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("numpy", "dtype"): np.dtype,
}
"""What rebuilds plain values. Of torch's own it is what torch.load(weights_only=True) allows."""


class Shell:
    """Stands for an object of a class that is not built: its name, and the values it was to be filled with."""

    name = ""
    values: tuple
    state: dict[str, Any]

    def __new__(cls, *values: Any) -> Shell:  # where pickle restores an object, it calls no __init__
        shell = super().__new__(cls)
        shell.values, shell.state = values, {}
        return shell

    def __setstate__(self, state: Any) -> None:
        self.state = dict(state) if isinstance(state, Mapping) else {}

    def __setitem__(self, key: Any, value: Any) -> None:
        self.state[key] = value


class TensorsOnly(pickle.Unpickler):
    """Reads a pickle as shells, tensors, numbers and texts. No class and no function that it names is imported."""

    def find_class(self, module: str, name: str) -> Callable:
        known = REBUILT.get((module, name))
        if known is not None:
            return known
        if name == "scalar" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return lambda dtype, data: np.frombuffer(data, dtype)[0] if not dtype.hasobject else None
        return type("Shell", (Shell,), {"name": f"{module}.{name}"})


def read_pickle(path: Path) -> Any:
    """The content of a pickle, its objects as shells. Raises ValueError where that is no such file."""
    try:
        with path.open("rb") as stream:
            return TensorsOnly(stream).load()
    except Exception as error:  # whatever bytes of a stranger lead to
        raise ValueError(f"{path} cannot be read without running its code: {type(error).__name__}: {error}") from error


def state_of(module: Any, prefix: str = "") -> dict[str, Tensor]:
    """The state dict of a shell of a torch module: its parameters, buffers and modules, by their dotted names."""
    inner = filled(module)
    found: dict[str, Tensor] = {}
    for part in ("_parameters", "_buffers"):
        found |= {f"{prefix}{name}": tensor for name, tensor in dict(inner.get(part, {})).items() if isinstance(tensor, Tensor)}
    for name, child in dict(inner.get("_modules", {})).items():
        found |= state_of(child, f"{prefix}{name}.") if isinstance(child, Shell) else {}
    return found


def filled(shell: Any) -> dict[str, Any]:
    """What an object was to be filled with: of NVIDIA's persistent classes, the state inside the description that they are made from."""
    values = shell.state
    for given in shell.values:
        inner = given.state if isinstance(given, Shell) else given
        if isinstance(inner, Mapping) and "state" in inner:
            return dict(inner["state"])
    return values


def class_name(shell: Shell) -> str:
    """The class that a persistent object names, else the one that its shell stands for."""
    for given in shell.values:
        inner = given.state if isinstance(given, Shell) else given
        if isinstance(inner, Mapping) and "class_name" in inner:
            return str(inner["class_name"])
    return shell.name
