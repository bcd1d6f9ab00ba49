"""ScoreALD as the paper writes it: an augmented score in the reverse update."""

from __future__ import annotations

from torch import Tensor

from diffusion_priors.diffusion.denoiser import Denoised
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.solvers.annealing import Annealing
from diffusion_priors.solvers.base import Guided, Problem


class ScoreALD(Guided):
    """s̃ = s_θ(x_t, t) − λ_t ∇_{x_t} ‖A x_t − y‖₂², used in place of s_θ in the reverse update (the paper's Eq. 5).

    The gradient is at x_t itself, so no derivative of the network is needed. As the paper writes it, x_t is
    compared with y although x_t ≈ √ᾱ_t x0: at high noise this pulls towards y, not towards √ᾱ_t y.
    The Langevin dynamics of Jalal et al. is ScoreALDLangevin.
    """

    needs_signal = True

    def __init__(self, annealing: Annealing) -> None:
        self.annealing = annealing

    def estimate(self, x: Tensor, level: NoiseLevel, problem: Problem) -> Denoised:
        denoised = problem.denoiser(x, level)
        gradient = problem.measurement.squared_residual_gradient(x)
        weight = self.annealing(level, problem.measurement.sigma_y)
        return denoised.with_score_change(level, -weight * gradient)
