"""DPS as the paper writes it: guidance inside the augmented score."""

from __future__ import annotations

from math import inf

from torch import Tensor

from diffusion_priors.diffusion.denoiser import Denoised
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.solvers.base import Guided, Problem


class DPSScore(Guided):
    """s̃ = s_θ(x_t, t) − ζ_t/‖A x̂0 − y‖₂ ∇_{x_t} ‖A x̂0(x_t) − y‖₂², used in the reverse update (the paper's Eq. 6).

    ζ_t = `zeta` at every level. Since ∇‖r‖² = 2 ‖r‖ ∇‖r‖, the score changes by −2 ζ ∇‖r‖, and the DDPM update
    multiplies that by β_t/√α_t: the same ζ moves x some hundred times less than in DPS, and least at low noise.
    With sampler=ddpm, the official DPS with ζ_DPS = 2 ζ β_t/√α_t takes the same step. β_t is that of the grid walked, so a step
    that skips levels moves as far as those that it skips together: unlike ζ_DPS, ζ holds over the number of steps.

    Raises ValueError for a negative zeta.
    """

    needs_signal = True

    def __init__(self, zeta: float = 100.0) -> None:
        if not 0.0 <= zeta < inf:
            raise ValueError(f"the step size must be finite and not negative, got zeta={zeta}; set solver.zeta")
        self.zeta = zeta

    def estimate(self, x: Tensor, level: NoiseLevel, problem: Problem) -> Denoised:
        denoised, pull_back = problem.denoiser.linearise(x, level)
        gradient = pull_back(problem.measurement.norm_gradient(denoised.x0))
        return denoised.with_score_change(level, -2.0 * self.zeta * gradient)
