"""ScoreALD with the measurement scaled to the level of x_t."""

from __future__ import annotations

from torch import Tensor

from diffusion_priors.diffusion.denoiser import Denoised
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.solvers.annealing import Annealing
from diffusion_priors.solvers.base import Guided, Problem


class ScoreALDScaled(Guided):
    """s̃ = s − λ_t ∇_{x_t} ‖√ᾱ_t y − A x_t‖₂²: the paper's Eq. 5 with y at the level of x_t = √ᾱ_t x0 + σ_t ε (compare ScoreALD).

    As the paper prints it, y stands for √ᾱ_t y, which pulls a noisy x_t towards an image of too much contrast. Not published
    in this form: it is what Jalal et al. 2021 do, who have x = x_t/√ᾱ_t, moved by a DDPM's steps. λ_t gets √ᾱ_t σ_y, the
    noise of √ᾱ_t y. No backward pass through the network.
    For a nonlinear A, √ᾱ_t A(x_t/√ᾱ_t) stands for A x_t.
    """

    needs_signal = True

    def __init__(self, annealing: Annealing) -> None:
        self.annealing = annealing

    def estimate(self, x: Tensor, level: NoiseLevel, problem: Problem) -> Denoised:
        denoised = problem.denoiser(x, level)
        gradient = level.alpha * problem.measurement.squared_residual_gradient(x / level.alpha)
        weight = self.annealing(level, level.alpha * problem.measurement.sigma_y)
        return denoised.with_score_change(level, -weight * gradient)
