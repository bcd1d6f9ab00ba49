"""What particle methods share: several states of an image, their weights, and how they start and end."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from diffusion_priors.diffusion.denoiser import Denoised
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.samplers import Sampler
from diffusion_priors.diffusion.transitions import Transition
from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.noise_models import NoiseModel
from diffusion_priors.solvers.base import Info, NotApplicable, Problem, Solver
from diffusion_priors.solvers.resampling import Cloud, chosen, effective_size, systematic


class ParticleSolver(Solver):
    """A method that moves P = `particles` states of each image by the density of a transition, and weighs them.

    They are resampled where their effective sample size is below `threshold` · P. A network call has B · P rows. The result
    is one particle, drawn by its weight: a sample. On the way, the first one stands for all.

    Raises ValueError for fewer than one particle or a threshold outside [0, 1].
    """

    sampler_type = Transition

    def __init__(self, particles: int, threshold: float) -> None:
        if particles < 1:
            raise ValueError(f"an image needs at least one particle, got particles={particles}; set solver.particles")
        if not 0.0 <= threshold <= 1.0:
            raise ValueError(f"the threshold of resampling must lie in [0, 1], got {threshold}; set solver.threshold")
        self.particles, self.threshold = particles, threshold

    def check(self, operator: Operator, noise_model: NoiseModel, sampler: Sampler) -> None:
        super().check(operator, noise_model, sampler)
        half, now, then = torch.full((1, 1, 1, 1), 0.5), NoiseLevel(2, 0.6, 0.8), NoiseLevel(1, 0.8, 0.6)
        self.check_noise(type(sampler).__name__, cast(Transition, sampler).kernel(half, Denoised(half, half), now, then)[1])

    def check_noise(self, sampler: str, std: float | Tensor) -> None:
        """Raises NotApplicable where the method cannot weigh by moves of this standard deviation."""
        if isinstance(std, float) and std == 0.0:
            raise NotApplicable(
                f"{type(self).__name__} needs a sampler that adds noise, and {sampler} as it is set adds none; use sampler=ddpm"
            )

    def init(self, problem: Problem, start: NoiseLevel) -> Cloud:
        x = start.sigma * self.noise(problem)
        return Cloud(x, x.new_zeros(x.shape[:2], dtype=torch.float64))

    def noise(self, problem: Problem) -> Tensor:
        """z (B, P, C, H, W), the particles of an image from that image's generator."""
        return problem.rng.normal(problem.like.unsqueeze(1).expand(-1, self.particles, -1, -1, -1))

    def resample(self, log_weights: Tensor, problem: Problem) -> tuple[Tensor, Tensor, Info]:
        """The parent (B, P) of each new particle, the new weights, and the effective sample size before."""
        size, u = effective_size(log_weights), problem.rng.uniform(log_weights[:, :1])
        again = (size < self.threshold * self.particles).unsqueeze(1)
        parents = torch.where(again, systematic(log_weights, u, self.particles), torch.arange(self.particles, device=u.device))
        return parents, log_weights.masked_fill(again, 0.0), {"ess": size}

    def drawn(self, x0: Tensor, log_weights: Tensor, problem: Problem) -> tuple[Cloud, Tensor, Info]:
        """The end: one of the particles `x0` (B · P, C, H, W), drawn by its weight, in the place of all."""
        u = problem.rng.uniform(log_weights[:, :1])
        one = chosen(x0.unflatten(0, log_weights.shape), systematic(log_weights, u, 1))
        return Cloud(one.expand(-1, self.particles, -1, -1, -1), log_weights), one[:, 0], {"ess": effective_size(log_weights)}

    def image(self, state: Cloud) -> Tensor:
        return state.x[:, 0]
