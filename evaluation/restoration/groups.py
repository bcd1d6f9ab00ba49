"""A batch computed in groups of one fixed size, so that rounding cannot depend on the size of the batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil
from typing import Any

import torch
from torch import Tensor

from diffusion_priors.evaluation.restoration.batches import Batch, Restored


def batches_of(items: int, size: int) -> list[range]:
    """The indices of `items` items in batches of at most `size`."""
    return [range(first, min(first + size, items)) for first in range(0, items, size)]


def walks_of(batches: Sequence[Sequence[int]], size: int | None) -> int:
    """How often the solver walks for these batches, each computed in groups of `size`."""
    return sum(ceil(len(batch) / (size or len(batch))) for batch in batches)


def groups_of(batch: Batch, size: int | None) -> Iterator[tuple[Batch, int]]:
    """Groups of `size` items, and how many of them are the batch's own: the last group is filled with copies of its last item.

    With size None the batch is one group.
    """
    items = len(batch.ids)
    if size is None:
        yield batch, items
        return
    for first in range(0, items, size):
        rows = [min(first + row, items - 1) for row in range(size)]
        yield _rows(batch, rows), min(size, items - first)


def _rows(batch: Batch, rows: Sequence[int]) -> Batch:
    return Batch(
        tuple(batch.ids[row] for row in rows),
        tuple(batch.samples[row] for row in rows),
        None if batch.truth is None else batch.truth[list(rows)],
        None if batch.measured is None else batch.measured[list(rows)],
    )


def joined(parts: Sequence[tuple[Restored, int]]) -> Restored:
    """The first items of each part, as many as its number says, as one batch."""
    if len(parts) == 1 and len(parts[0][0].ids) == parts[0][1]:
        return parts[0][0]
    columns = zip(*([None if value is None else value[:count] for value in part] for part, count in parts), strict=True)
    return Restored(*map(_together, columns))


def _together(values: Sequence) -> Any:
    """Tensors, tuples or lists, one after the other; None where there are none."""
    if values[0] is None:
        return None
    if isinstance(values[0], Tensor):
        return torch.cat(values)
    return type(values[0])(item for value in values for item in value)
