"""An operator of this project as a physics of DeepInverse (the extra `deepinv`; Tachella et al. 2023)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.linear import LinearOperator
from diffusion_priors.operators.noise_models import NoiseModel


def to_deepinv(operator: Operator, noise_model: NoiseModel | None = None) -> nn.Module:
    """A physics with A of a drawn `operator`: DecomposablePhysics where it has a spectrum, LinearPhysics where it is linear.

    DeepInverse's images lie in [0, 1]. A linear physics is the same linear map in these units: its y is (y + A 1)/2 of ours,
    and a standard deviation is half of ours. Another physics takes x in [0, 1] to y = A(2 x − 1), in our unit. Masks and
    kernels are those that the operator has drawn, for as many images.

    Raises ValueError for an operator that has not drawn yet, and for noise that is not Gaussian.
    """
    if not hasattr(operator, "image_shape"):
        raise ValueError(f"this {type(operator).__name__} has not drawn its mask or kernel; call operator.draw(images, generators) first")
    from deepinv.physics import GaussianNoise, Physics, ZeroNoise

    scale = 0.5 if operator.linear else 1.0
    noise = ZeroNoise() if noise_model is None else GaussianNoise(scale * _std(operator, noise_model))
    physics = _linear(cast(LinearOperator, operator), noise) if operator.linear else Physics(lambda x, **_: operator(2.0 * x - 1.0), noise)
    physics.operator = operator  # it moves with the physics
    return physics


def _linear(operator: LinearOperator, noise: nn.Module) -> nn.Module:
    from deepinv.physics import DecomposablePhysics, LinearPhysics

    shape = tuple(operator.image_shape[1:])
    if not operator.has_spectrum:
        return LinearPhysics(A=lambda x, **_: operator(x), A_adjoint=lambda y, **_: operator.adjoint(y), img_size=shape, noise_model=noise)

    def synthesise_u(c: Tensor) -> Tensor:
        """U c = A V s⁺ c."""
        spectrum = operator.spectrum()
        inverse = torch.where(spectrum.s > 0.0, 1.0 / spectrum.s.clamp_min(torch.finfo(spectrum.s.dtype).tiny), 0.0)
        return operator(spectrum.synthesise(inverse * c))  # c/s would have the gradient NaN where s is 0

    s = operator.spectrum().s
    return DecomposablePhysics(
        U=synthesise_u,
        U_adjoint=lambda y: operator.spectrum().measured(y),
        V=lambda c: operator.spectrum().synthesise(c),
        V_adjoint=lambda x: operator.spectrum().analyse(x),
        mask=s.expand(len(s) if s.ndim == 4 else 1, *shape).contiguous(),
        img_size=shape,
        noise_model=noise,
    )


def _std(operator: Operator, noise_model: NoiseModel) -> float:
    """The standard deviation of the noise, of which DeepInverse's solvers know no other law."""
    if not noise_model.gaussian:
        raise ValueError(
            f"{type(noise_model).__name__} noise has no counterpart in DeepInverse; leave out noise_model=, and set physics.noise_model"
        )
    y = operator(torch.zeros(operator.image_shape, dtype=operator.image_dtype))
    return float(noise_model.sigma(y, operator.support(y)).flatten()[0])
