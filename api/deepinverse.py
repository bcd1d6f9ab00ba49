"""Parts of DeepInverse in this project, and parts of this project in DeepInverse (`pip install "diffusion-priors[deepinv]"`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from diffusion_priors.diffusion.deepinverse import to_deepinv as denoiser_for
from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.image_random import image_generator
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.deepinv import deepinv
from diffusion_priors.operators.deepinv_export import to_deepinv
from diffusion_priors.operators.noise_models import NoiseModel


def operator_from_deepinv(
    physics: nn.Module, pixel_range: tuple[float, float] | None = None, own_adjoint: bool = True, unit: str = Operator.unit
) -> Operator:
    """The operator y = physics.A(x0), without the noise of the physics; the arguments and errors are those of operator=deepinv."""
    return deepinv(lambda: physics, pixel_range, own_adjoint, unit)


def deepinv_denoiser(prior: Prior) -> nn.Module:
    """The prior as a deepinv.models.Denoiser of images in [0, 1]: denoiser(x, sigma), differentiable in x."""
    return denoiser_for(Denoiser(prior), prior.image_schedule)


def deepinv_physics(
    operator: Operator,
    image_shape: Sequence[int],
    noise_model: NoiseModel | None = None,
    seed: int = 0,
    ids: Sequence[str] | None = None,
) -> nn.Module:
    """The operator as a physics of DeepInverse, drawn for images of the shape (B, C, H, W); a linear one stays linear.

    Masks and kernels are those of `restore` with this seed and these ids (image-0, image-1, …). DeepInverse's images lie in
    [0, 1]: the y of a linear physics is (y + A 1)/2 of ours. Raises ValueError for noise that is not Gaussian.
    """
    names = [f"image-{number}" for number in range(image_shape[0])] if ids is None else list(ids)
    generators = [image_generator(seed, name, "measurement") for name in names]
    return to_deepinv(operator.draw(torch.zeros(*image_shape), generators), noise_model)
