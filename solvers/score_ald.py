"""ScoreALD as the paper writes it: an augmented score in the reverse update."""

from __future__ import annotations

from diffusion_priors.solvers.annealing import Annealing
from diffusion_priors.solvers.base import Solver


class ScoreALD(Solver):
    """s̃ = s_θ(x_t, t) − λ_t ∇_{x_t} ‖A x_t − y‖₂², used in place of s_θ in the reverse update (the paper's Eq. 5).

    The gradient is at x_t itself, so no derivative of the network is needed. As the paper writes it, x_t is
    compared with y although x_t ≈ √ᾱ_t x0: at high noise this pulls towards y, not towards √ᾱ_t y.
    The Langevin dynamics of Jalal et al. is ScoreALDLangevin.
    """

    def __init__(self, annealing: Annealing) -> None:
        self.annealing = annealing

    def step(self, x, now, then, problem):
        x0, fraction = problem.denoiser(x, now)
        gradient = problem.operator.misfit_gradient(x, problem.y)
        guided = now.guided(x0, -self.annealing(now, problem.sigma_y) * gradient)
        return problem.transition(x, guided, now, then, problem.rng, fraction), x0
