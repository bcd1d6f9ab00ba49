"""Denoising diffusion null-space models (Wang et al. 2023)."""

from __future__ import annotations

from torch import Tensor

from diffusion_priors.diffusion.denoiser import Denoised
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.operators.requirements import LINEAR
from diffusion_priors.solvers.base import Guided, Problem


class DDNM(Guided):
    """x̃0 = x̂0 + A⁺(y − A x̂0), ε̂ the network's (Wang et al. 2023, Eq. 13).

    The range of Aᴴ is taken from y, its null space from the network; the noise of y goes into the image with it. For
    noisy y use DDNMPlus. A⁺ is in closed form for operators with a spectrum, by conjugate gradients otherwise. The paper takes
    100 steps of DDIM with η = 0.85, which solver=ddnm selects; every other sampler works too.
    """

    requires = (LINEAR,)

    def estimate(self, x: Tensor, level: NoiseLevel, problem: Problem) -> Denoised:
        denoised = problem.denoiser(x, level)
        corrected = problem.measurement.prox(denoised.x0, 0.0)
        return denoised._replace(x0=corrected, eps=level.eps(x, denoised.x0))
