"""A measurement: all that is known of x0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self, cast

import torch
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.operators.base import Operator, PullBack
from diffusion_priors.operators.linear import LinearOperator
from diffusion_priors.operators.noise_models import NoiseModel


@dataclass(frozen=True, eq=False)
class Measurement:
    """y = A(x0) + n, image by image: the drawn `operator`, the `noise_model`, `y` (B, …) and `sigma_y` (B, 1, 1, 1).

    `sigma_y` is the standard deviation of n in the unit of y, per real component where y is complex. Only entries of y
    in the operator's support count: the others are 0 in y and in every residual. Gradients are with respect to x0, per
    image, and detached.
    """

    operator: Operator
    noise_model: NoiseModel
    y: Tensor
    sigma_y: Tensor

    @property
    def linear_operator(self) -> LinearOperator:
        """The operator, for a solver that requires LINEAR or SPECTRUM."""
        return cast(LinearOperator, self.operator)

    @classmethod
    def of(cls, operator: Operator, noise_model: NoiseModel, x0: Tensor, generators: Sequence[Generator]) -> Self:
        """y = A(x0) + n, image b's noise from generator b. Entries that are not measured carry no noise, unlike in the code of DPS."""
        return cls.given(operator, noise_model, noise_model.sample(operator.acquire(x0), generators))

    @classmethod
    def given(cls, operator: Operator, noise_model: NoiseModel, y: Tensor) -> Self:
        """A y that was measured elsewhere: entries outside its support are set to 0."""
        support = operator.support(y)
        y = y * support
        return cls(operator, noise_model, y, noise_model.sigma(y, support))

    @property
    def support(self) -> Tensor:
        return self.operator.support(self.y)

    def residual(self, x0: Tensor) -> Tensor:
        """y − A(x0)."""
        return self.support * (self.y - self.operator(x0))

    def norm(self, x0: Tensor) -> Tensor:
        """‖y − A(x0)‖₂, (B,)."""
        return torch.linalg.vector_norm(self.residual(x0).flatten(1), dim=1)

    def norm_gradient(self, x0: Tensor) -> Tensor:
        """∇‖y − A(x0)‖₂, 0 where the residual is 0."""
        return self.norm_with_gradient(x0)[1]

    def norm_with_gradient(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        """(‖y − A(x0)‖₂, (B,); its gradient) from one evaluation of A."""
        residual, pull_back = self._linearise(x0)
        norm = torch.linalg.vector_norm(residual.flatten(1), dim=1)
        rows = norm.view(-1, *[1] * (residual.ndim - 1))
        return norm, pull_back(torch.where(rows > 0.0, residual / rows, 0.0))

    def rms_residual(self, x0: Tensor) -> Tensor:
        """The root mean square of y − A(x0) over the measured entries, (B,): σ_y where x0 is the ground truth.

        A complex entry counts as two numbers, as it does in σ_y.
        """
        entries = self.support.expand(self.y.shape).flatten(1).sum(1) * (2 if self.y.is_complex() else 1)
        return self.residual(x0).abs().flatten(1).square().sum(1).div(entries).sqrt()

    def squared_residual_gradient(self, x0: Tensor) -> Tensor:
        """∇‖y − A(x0)‖₂² = 2 Jᴴ(A(x0) − y)."""
        residual, pull_back = self._linearise(x0)
        return 2.0 * pull_back(residual)

    def nll(self, x0: Tensor) -> Tensor:
        """−log p(y | x0), (B,), constants included. Raises ValueError where the noise has no density."""
        return self.noise_model.nll(self.y, self.operator(x0), self.support)

    def nll_gradient(self, x0: Tensor) -> Tensor:
        """∇(−log p(y | x0)). Raises ValueError where the noise has no density."""
        clean, pull_back = self.operator.linearise(x0.detach())
        return pull_back(self.noise_model.nll_gradient(self.y, clean, self.support))

    def prox(self, z: Tensor, weight: Tensor | float) -> Tensor:
        """argmin_x ½‖y − A x‖² + w/2 ‖x − z‖² = z + (AᴴA + w I)⁻¹ Aᴴ(y − A z), w ≥ 0 a number or (B, 1, 1, 1); linear A only.

        At w = 0 it is the projection z + A⁺(y − A z).
        """
        return z + self.linear_operator.tikhonov(self.residual(z), weight)

    def repeat(self, k: int) -> Self:
        """The measurement for `k` copies of each image, the copies of an image next to each other."""
        y, sigma_y = self.y.repeat_interleave(k, 0), self.sigma_y.repeat_interleave(k, 0)
        return replace(self, operator=self.operator.repeat(k), y=y, sigma_y=sigma_y)

    def _linearise(self, x0: Tensor) -> tuple[Tensor, PullBack]:
        """(A(x0) − y, v ↦ Jᴴv) on the support."""
        clean, pull_back = self.operator.linearise(x0.detach())
        return self.support * (clean - self.y), pull_back
