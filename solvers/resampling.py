"""Weights of particles, and drawing particles by them. Each image has P of them, in the second dimension."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Cloud(NamedTuple):
    """P particles x (B, P, C, H, W) of each image and the logarithms of their weights (B, P), float64, up to a constant per image."""

    x: Tensor
    log_weights: Tensor


def effective_size(log_weights: Tensor) -> Tensor:
    """1/Σ w², w the normalised weights, (B,): P where all are equal, 1 where one has all the weight (Kong et al. 1994)."""
    return 1.0 / log_weights.softmax(1).square().sum(1)


def systematic(log_weights: Tensor, u: Tensor, count: int) -> Tensor:
    """The particles (B, `count`) at (i + u)/`count` of the cumulated weights, i = 0, 1, …, u (B, 1) uniform (Kitagawa 1996).

    Each particle is taken ⌊count · w⌋ or ⌈count · w⌉ times; with `count` 1 it is a draw by the weights.
    """
    places = (torch.arange(count, dtype=u.dtype, device=u.device) + u) / count
    cumulated = log_weights.softmax(1).cumsum(1)
    return torch.searchsorted(cumulated, places, right=True).clamp_max(log_weights.shape[1] - 1)


def chosen(rows: Tensor, which: Tensor) -> Tensor:
    """The particles `which` (B, K) of `rows` (B, P, …), (B, K, …)."""
    return rows[torch.arange(len(rows), device=rows.device)[:, None], which]


def half_squares(squares: Tensor) -> Tensor:
    """½ Σ over the pixels of `squares` (B, P, C, H, W), (B, P) in float64: what a sum over an image needs of a logarithm."""
    return squares.double().flatten(2).sum(2) / 2.0
