"""Decomposed diffusion sampling (Chung et al. 2024)."""

from __future__ import annotations

from math import inf

from torch import Tensor

from diffusion_priors.diffusion.denoiser import Denoised
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.operators.krylov import cg
from diffusion_priors.operators.requirements import LINEAR
from diffusion_priors.solvers.base import Guided, Problem


class DDS(Guided):
    """x̃0 = `iterations` steps of conjugate gradients from x̂0 on (I + γ AᴴA) x = x̂0 + γ Aᴴy, ε̂ the network's (Chung et al. 2024).

    It is DiffPIR's proximal step with the fixed weight 1/γ, stopped early, which keeps x̃0 on the tangent of the prior's
    manifold if that is a Krylov subspace. The network's ε̂ is kept. The paper has γ = 5 and 5 iterations on noisy data;
    solver=dds selects its sampler, DDIM with η = 0.85. γ knows nothing of σ_y: raise it where y is clean.

    Raises ValueError where γ is not positive or `iterations` is below 1.
    """

    requires = (LINEAR,)

    def __init__(self, gamma: float = 5.0, iterations: int = 5) -> None:
        if not 0.0 < gamma < inf:
            raise ValueError(f"the weight of the data must be positive and finite, got gamma={gamma}; set solver.gamma")
        if iterations < 1:
            raise ValueError(f"conjugate gradients need at least one iteration, got iterations={iterations}; set solver.iterations")
        self.gamma, self.iterations = gamma, iterations

    def estimate(self, x: Tensor, level: NoiseLevel, problem: Problem) -> Denoised:
        denoised, measurement, operator = problem.denoiser(x, level), problem.measurement, problem.measurement.linear_operator
        missing = self.gamma * operator.adjoint(measurement.residual(denoised.x0))
        change = cg(lambda v: v + self.gamma * operator.adjoint(operator(v)), missing, operator.cg_tolerance, self.iterations)
        return denoised._replace(x0=denoised.x0 + change, eps=level.eps(x, denoised.x0))
