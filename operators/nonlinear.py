"""Least squares with a quadratic penalty for any operator, image by image: exact Gauss-Newton steps along a direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.krylov import inner, squared_norm


class Point(NamedTuple):
    """x (B, C, H, W), A(x), f(x) (B,) and ∇f(x)."""

    x: Tensor
    fitted: Tensor
    value: Tensor
    gradient: Tensor


@dataclass(frozen=True, eq=False)
class PenalisedFit:
    """f(x) = ½‖y − A(x)‖² + w/2 ‖x − z‖² over the `support` of y, w ≥ 0 a number or (B, 1, 1, 1), A any operator."""

    operator: Operator
    y: Tensor
    support: Tensor
    z: Tensor
    weight: Tensor | float
    halvings = 8

    def at(self, x: Tensor) -> Point:
        clean, pull_back = self.operator.linearise(x)
        fitted = self.support * clean
        residual, away = fitted - self.support * self.y, x - self.z
        value = 0.5 * (squared_norm(residual) + inner(self.weight * away, away))
        return Point(x, fitted, value, pull_back(residual) + self.weight * away)

    def along(self, point: Point, d: Tensor) -> Point:
        """x + a d, a = −⟨∇f, d⟩/(w‖d‖² + ‖J d‖²): the minimum of f along d if A were linear in it.

        a is halved, at most `halvings` times, until f is no larger than at x; an image for which it still is stays at x.
        """
        curvature = inner(self.weight * d, d) + squared_norm(self.support * self.operator.push_forward(point.x, d))
        length = torch.where(curvature > 0.0, -inner(point.gradient, d) / curvature, 0.0)
        limit = point.value * (1.0 + 4.0 * torch.finfo(point.value.dtype).eps)
        reached = self.at(point.x + _like(length, d) * d)
        for _ in range(self.halvings):
            higher = ~(reached.value <= limit) & limit.isfinite()
            if not higher.any():
                return reached
            length = torch.where(higher, length / 2.0, length)
            reached = self.at(point.x + _like(length, d) * d)
        lower = reached.value <= limit
        return Point(*(torch.where(_like(lower, new), new, old) for new, old in zip(reached, point, strict=True)))

    def minimise(self, start: Tensor, iterations: int) -> Tensor:
        """Nonlinear conjugate gradients with the weights of Polak and Ribière, not below 0 (Nocedal & Wright 2006, Sec. 5.2).

        For a linear A they are conjugate gradients. An iteration costs A, a vector-Jacobian and a Jacobian-vector product of A.
        """
        point = self.at(start)
        d = -point.gradient
        for _ in range(iterations):
            before, point = point, self.along(point, d)
            turned = inner(point.gradient, point.gradient - before.gradient)
            past = squared_norm(before.gradient)
            kept = torch.where(past > 0.0, turned / past, 0.0).clamp_min(0.0)
            d = _like(kept, d) * d - point.gradient
        return point.x


def _like(value: Tensor, like: Tensor) -> Tensor:
    """(B,) → (B, 1, …, 1) with as many dimensions as `like`."""
    return value.view(-1, *[1] * (like.ndim - 1))
