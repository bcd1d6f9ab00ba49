"""DPS as the paper writes it: guidance inside the augmented score."""

from __future__ import annotations

from math import inf

from diffusion_priors.solvers.base import Solver


class DPSScore(Solver):
    """s̃ = s_θ(x_t, t) − ζ_t/‖A x̂0 − y‖₂ ∇_{x_t} ‖A x̂0(x_t) − y‖₂², used in the reverse update (the paper's Eq. 6).

    ζ_t = `zeta` at every level. Since ∇‖r‖² = 2 ‖r‖ ∇‖r‖, the score changes by −2 ζ ∇‖r‖, and the DDPM update
    multiplies that by β_t/√α_t: the same ζ moves x some hundred times less than in DPS, and least at low noise.
    With a DDPM transition, DPS with ζ_DPS = 2 ζ β_t/√α_t takes the same step.

    Raises ValueError for a negative zeta.
    """

    needs_gradient = True

    def __init__(self, zeta: float = 100.0) -> None:
        if not 0.0 <= zeta < inf:
            raise ValueError(f"the step size must be finite and not negative, got zeta={zeta}; set solver.zeta")
        self.zeta = zeta

    def step(self, x, now, then, problem):
        x0, fraction, gradient = problem.guidance(x, now)
        guided = now.guided(x0, -2.0 * self.zeta * gradient)
        return problem.transition(x, guided, now, then, problem.rng, fraction), x0
