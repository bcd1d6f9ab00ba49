"""Conjugate gradients for a batch: every image has its own step sizes and stops by itself, with a step of 0."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]


def cg(matvec: Map, b: Tensor, tolerance: float, iterations: int, start: Tensor | None = None) -> Tensor:
    """M⁻¹b for a Hermitian positive definite M (Hestenes & Stiefel 1952).

    An image stops once ‖b − Mx‖ ≤ tolerance · ‖b‖, after `iterations`, or at a direction p without positive curvature pᴴMp,
    which an M that is only nearly so may have. `start` is the first x, by default 0.
    """
    x = torch.zeros_like(b) if start is None else start
    r = b if start is None else b - matvec(start)
    p, gamma = r, squared_norm(r)
    floor = tolerance**2 * squared_norm(b)
    active = torch.ones_like(gamma, dtype=torch.bool)
    for _ in range(iterations):
        active = active & (gamma > floor)
        if not active.any():
            break
        q = matvec(p)
        curvature = inner(p, q)
        active = active & (curvature > 0.0)
        step = torch.where(active, gamma / _positive(curvature), 0.0)
        x, r = x + _rows(step, x) * p, r - _rows(step, x) * q
        fresh = squared_norm(r)
        p = r + _rows(fresh / _positive(gamma), p) * p
        gamma = fresh
    return x


def cgls(forward: Map, adjoint: Map, y: Tensor, weight: Tensor | float, tolerance: float, iterations: int) -> Tensor:
    """(AᴴA + w I)⁻¹ Aᴴy, and A⁺y at w = 0, by CGLS (Björck 1996, Alg. 7.4.1, with the shift w), w a number or (B, 1, …).

    An image stops once ‖Aᴴ(y − Ax) − wx‖ ≤ tolerance · ‖Aᴴy‖, or after `iterations`; for an ill-conditioned A that is
    regularisation. The recursion is on y − Ax, which rounds less than `cg` on AᴴA x = Aᴴy.
    """
    s = adjoint(y)
    x, r, p, gamma = torch.zeros_like(s), y, s, squared_norm(s)
    floor = tolerance**2 * gamma
    for _ in range(iterations):
        active = gamma > floor
        if not active.any():
            break
        q = forward(p)
        step = torch.where(active, gamma / _positive(squared_norm(q) + inner(weight * p, p)), 0.0)
        x, r = x + _rows(step, x) * p, r - _rows(step, r) * q
        s = adjoint(r) - weight * x
        fresh = squared_norm(s)
        p = s + _rows(fresh / _positive(gamma), p) * p
        gamma = fresh
    return x


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Re⟨a, b⟩ = Re aᴴb per image, (B,)."""
    return (a.conj() * b).real.flatten(1).sum(1)


def squared_norm(a: Tensor) -> Tensor:
    return inner(a, a)


def _rows(value: Tensor, like: Tensor) -> Tensor:
    """(B,) → (B, 1, …, 1) with as many dimensions as `like`."""
    return value.view(-1, *[1] * (like.ndim - 1))


def _positive(value: Tensor) -> Tensor:
    return value.clamp_min(torch.finfo(value.dtype).tiny)
