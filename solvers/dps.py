"""Diffusion posterior sampling (Chung et al. 2023)."""

from __future__ import annotations

from math import inf

from torch import Tensor

from diffusion_priors.solvers.base import Guided, Info, Problem, Step, Walk


class DPS(Guided):
    """x_{t−1} = x'_{t−1} − ζ ∇_{x_t} ‖y − A x̂0(x_t)‖₂, x'_{t−1} the unconditional step on the same x̂0 (Chung et al. 2023, Alg. 1).

    `zeta` is the official code's: the norm is not squared. The paper's Alg. 1 has ζ_t ∇‖·‖₂² with ζ_t = ζ'/‖·‖₂,
    which is 2 ζ' ∇‖·‖₂: a ζ' of 1 there is a zeta of 2 here, and the code's values are not the paper's. They are,
    on FFHQ at 256 x 256 with 1000 steps, 0.5 for inpainting and 0.3 for deblurring and super-resolution; the
    default suits the bundled prior, whose runs have fewer steps. The norm is per image; the code's runs over the
    batch. x̂0 is clamped inside the graph (prior.clip), as in the code. A sampler that adds no noise (ddim, heun, dpmpp_2m)
    keeps the error of every step, so it needs a smaller zeta than ddpm.

    Raises ValueError for a negative zeta.
    """

    def __init__(self, zeta: float = 1.0) -> None:
        if not 0.0 <= zeta < inf:
            raise ValueError(f"the step size must be finite and not negative, got zeta={zeta}; set solver.zeta")
        self.zeta = zeta

    def step(self, state: Walk, step: Step, problem: Problem) -> tuple[Walk, Tensor, Info]:
        denoised, pull_back = problem.denoiser.linearise(state.x, step.now)
        gradient = pull_back(problem.measurement.norm_gradient(denoised.x0))
        moved = self.move(state, step, denoised, problem)
        return moved._replace(x=moved.x.sub(gradient, alpha=self.zeta)), denoised.x0, {}
