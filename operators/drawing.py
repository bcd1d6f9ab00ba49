"""How a measurement that is no image is drawn: as one looks at it in its field, with its own axes."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Drawing:
    """Grey `values` (B, h, w), one per measurement: black at its `low` and white at its `high` (B,), both in `unit`.

    `name` says what is drawn, `rows` and `columns` what the axes are.
    """

    name: str
    rows: str
    columns: str
    unit: str
    values: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def linear(cls, name: str, rows: str, columns: str, values: Tensor) -> Self:
        """From the least to the largest value."""
        return cls(name, rows, columns, "", values, values.flatten(1).amin(1), values.flatten(1).amax(1))

    @classmethod
    def logarithmic(cls, name: str, rows: str, columns: str, magnitude: Tensor, floor: float = -60.0) -> Self:
        """Decibels of the largest magnitude: 20 log₁₀, down to `floor`."""
        largest = magnitude.flatten(1).amax(1).clamp_min(torch.finfo(magnitude.dtype).tiny)
        values = (20.0 * (magnitude / largest.view(-1, 1, 1)).log10()).clamp_min(floor)
        return cls(name, rows, columns, " dB", values, torch.full_like(largest, floor), torch.zeros_like(largest))

    @classmethod
    def of_numbers(cls, name: str, y: Tensor) -> Self:
        """Any y, (B, …): its last two axes, the mean over others before them; decibels where it is complex.

        A list of numbers is laid out in rows of equal length, as near to a square as their count allows.
        """
        if min(y.shape[-2:]) == 1 or y.ndim < 3:
            count = y.flatten(1).shape[1]
            height = max(n for n in range(1, isqrt(count) + 1) if count % n == 0)
            name, y = f"{name}, {count} numbers in reading order", y.reshape(len(y), 1, height, -1)
        y = y.flatten(1, -3) if y.ndim > 3 else y[:, None]
        rows, columns = f"{y.shape[-2]} rows", f"{y.shape[-1]} columns"
        if y.is_complex():
            return cls.logarithmic(f"magnitude of {name}", rows, columns, root_sum_of_squares(y))
        return cls.linear(name if y.shape[1] == 1 else f"{name}, mean of {y.shape[1]}", rows, columns, y.mean(1))

    def images(self) -> Tensor:
        """(B, 1, h, w) in [-1, 1]."""
        low, high = (end.view(-1, 1, 1) for end in (self.low, self.high))
        return (2.0 * (self.values - low) / (high - low).clamp_min(torch.finfo(low.dtype).tiny) - 1.0)[:, None]

    def captions(self) -> list[str]:
        """What is drawn; rows by columns; its scale: for each measurement."""
        ends = zip(self.low.tolist(), self.high.tolist(), strict=True)
        drawn = f"{self.name}; {self.rows} by {self.columns}"
        return [f"{drawn}; black {low:.3g}{self.unit}, white {high:.3g}{self.unit}" for low, high in ends]


def root_sum_of_squares(y: Tensor) -> Tensor:
    """(B, C, h, w) → (B, h, w): the magnitudes of all channels and coils together."""
    return y.abs().square().sum(1).sqrt()
