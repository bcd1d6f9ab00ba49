"""States: a tensor, or a named tuple of tensors, with one row per image. What is common to all of them is written here once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def rows_of(chosen: Tensor, new: Any, old: Any) -> Any:
    """The rows of `new` for images that are `chosen` (B,), of `old` for the others. What is no tensor is taken from `new`."""
    if isinstance(new, Tensor):
        return new if old is None else torch.where(chosen.view(-1, *[1] * (new.ndim - 1)), new, old)
    if isinstance(new, tuple):
        before = [None] * len(new) if old is None else old
        return type(new)(*(rows_of(chosen, one, other) for one, other in zip(new, before, strict=True)))
    return new


def all_finite(state: Any) -> Tensor | bool:
    """(B,) whether every number of an image's rows is finite."""
    if isinstance(state, Tensor):
        return state.isfinite().reshape(len(state), -1).all(1)
    finite: Tensor | bool = True
    for part in state if isinstance(state, tuple) else ():
        finite = finite & all_finite(part)
    return finite
