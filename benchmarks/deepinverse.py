"""Methods of DeepInverse 0.5.0 on a measurement of ours: the same network, the same A and y, the same noise levels.

DeepInverse has images in [0, 1]. There x is (x + 1)/2 of ours, so y becomes (y + A 1)/2, and a standard deviation is half of
ours. Its samplers walk in σ/α of x in [-1, 1], its denoisers take the σ of x in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log1p, sqrt

import deepinv
import numpy as np
import torch
from deepinv.optim.data_fidelity import L2
from deepinv.physics import BlurFFT, DecomposablePhysics, GaussianNoise, Inpainting
from deepinv.sampling import DDIMSolver, NoisyDataFidelity, PosteriorDiffusion, VariancePreservingDiffusion
from torch import Tensor, nn

from diffusion_priors.diffusion.deepinverse import to_deepinv as exported_denoiser
from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.grids import Grid, Linspace
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.schedules import Schedule
from diffusion_priors.operators.deepinv_export import to_deepinv as exported_physics
from diffusion_priors.operators.measurement import Measurement

BETA_MIN, BETA_MAX = 0.1, 20.0
"""Of DeepInverse's variance preserving process: the linear schedule of 1000 steps in continuous time."""


@dataclass(frozen=True)
class Peer:
    """What a method of DeepInverse is given: its denoiser, A, y in [0, 1] units, and a seed that is not 0 (DDRM ignores 0)."""

    denoiser: nn.Module
    physics: DecomposablePhysics
    y: Tensor
    seed: int

    @classmethod
    def of(cls, denoiser: Denoiser, schedule: Schedule, measurement: Measurement, seed: int) -> Peer:
        return cls(exported_denoiser(denoiser, schedule), physics_of(measurement), measured(measurement), seed)

    def images(self) -> list[Peer]:
        """One for each image where the images have masks of their own: DDRM takes one mask for a batch."""
        if len(self.physics.mask) == 1:
            return [self]
        size, noise = self.physics.img_size, self.physics.noise_model
        masks = self.physics.mask.split(1)
        return [
            Peer(self.denoiser, Inpainting(size, mask, noise_model=noise), y, self.seed + b)
            for b, (mask, y) in enumerate(zip(masks, self.y.split(1), strict=True))
        ]


Restore = Callable[[Peer], Tensor]
"""→ the restorations, in [0, 1] units."""


def physics_of(measurement: Measurement) -> DecomposablePhysics:
    """A, decomposed as DeepInverse does it for masks and circular blurs, and by our spectrum where it has no decomposition."""
    operator = measurement.linear_operator
    shape = tuple(operator.image_shape[1:])
    noise = GaussianNoise(float(measurement.sigma_y.flatten()[0]) / 2.0)
    if hasattr(operator, "mask"):
        return Inpainting(shape, operator.mask.expand(-1, *shape).contiguous(), noise_model=noise)
    if getattr(operator, "boundary", None) == "circular":
        point = torch.zeros(1, 1, *shape[1:], dtype=measurement.y.dtype)
        point[..., shape[1] // 2, shape[2] // 2] = 1.0
        return BlurFFT(shape, filter=operator(point), noise_model=noise)
    physics = exported_physics(operator)
    physics.set_noise_model(noise)
    return physics


def measured(measurement: Measurement) -> Tensor:
    """y in [0, 1] units."""
    ones = torch.ones(measurement.linear_operator.image_shape, dtype=measurement.y.dtype)
    return (measurement.y + measurement.operator(ones)) / 2.0


def time_of(level: NoiseLevel) -> float:
    """The time t at which DeepInverse's process has the σ/α of `level`: β_min t + (β_max − β_min) t²/2 = log(1 + σ²/α²)."""
    slope = BETA_MAX - BETA_MIN
    return (sqrt(BETA_MIN**2 + 2.0 * slope * log1p(level.noise_to_signal**2)) - BETA_MIN) / slope


def guided(
    fidelity: Callable[[], NoisyDataFidelity], steps: int = 100, eta: float = 1.0, grid: Callable[[int], Grid] = Linspace
) -> Restore:
    """Its ΠGDM, MMPS or DPS on the levels of `grid`: moved by DDPM at η = 1, by DDIM at η = 0."""

    def restore(peer: Peer) -> Tensor:
        times = torch.tensor([time_of(level) for level in grid(steps)(peer.denoiser.schedule)], dtype=torch.float64)
        solver = DDIMSolver(times, eta=eta, rng=torch.Generator(peer.y.device).manual_seed(peer.seed))
        process = VariancePreservingDiffusion(beta_min=BETA_MIN, beta_max=BETA_MAX, alpha=1.0)
        return PosteriorDiffusion(data_fidelity=fidelity(), denoiser=peer.denoiser, sde=process, solver=solver)(peer.y, peer.physics)

    return restore


def ddrm(steps: int = 100, sigmas: Callable[[Peer, int], Sequence[float]] | None = None, eta: float = 0.85) -> Restore:
    """Its DDRM, by default on its own levels: σ from 1 to 0 in equal steps."""

    def restore(peer: Peer) -> Tensor:
        levels = np.linspace(1.0, 0.0, steps) if sigmas is None else sigmas(peer, steps)
        return torch.cat([deepinv.sampling.DDRM(one.denoiser, levels, eta)(one.y, one.physics, seed=one.seed) for one in peer.images()])

    return restore


def our_sigmas(peer: Peer, steps: int, grid: Callable[[int], Grid] = Linspace) -> list[float]:
    """σ of our noisy levels, x in [0, 1]: as many as network calls."""
    return [level.noise_to_signal / 2.0 for level in grid(steps)(peer.denoiser.schedule)[:-1]]


def diffpir(lam: float = 7.0, zeta: float = 0.1, steps: int = 100) -> Restore:
    """Its DiffPIR, whose levels are those of the official code."""

    def restore(peer: Peer) -> Tensor:
        sigma = float(peer.physics.noise_model.sigma)
        method = deepinv.sampling.DiffPIR(peer.denoiser, L2(), sigma=sigma, max_iter=steps, zeta=zeta, lambda_=lam)
        return method(peer.y, peer.physics, seed=peer.seed)

    return restore
