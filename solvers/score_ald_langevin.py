"""Annealed Langevin dynamics of Jalal et al. (2021)."""

from __future__ import annotations

from torch import Tensor

from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.solvers.annealing import Annealing
from diffusion_priors.solvers.base import Info, Problem, Solver, Step


class ScoreALDLangevin(Solver):
    """x ← x + η_t (s(x, t) + Aᴴ(y − A x)/(γ_t² + σ_y²)) + √(2 η_t) z, `inner` times per level (Jalal et al. 2021, Sec. 3).

    x lives where Jalal et al. have it, without the shrinking of a DDPM: x = x_t/α_t = x0 + σ̃ ε, σ̃ = σ_t/α_t, so
    s = (x̂0 − x)/σ̃². The last level ends with x̂0. They leave η_t open; here η_t = step_size/(1/σ̃_t² + 2 λ_t), λ_t
    the annealing: relative to the posterior's largest curvature where ‖A‖ ≤ 1, so that no annealing makes it
    diverge, and ∝ σ̃_t² as in Song & Ermon 2019, Alg. 1, wherever γ_t ∝ σ̃_t outweighs σ_y.
    Their code departs from their formula: it scales the likelihood's gradient to the norm of the score times a
    constant, over the whole batch, and has no γ_t. This is the formula. Their code also sets η_t = step_lr (σ̃_t/σ̃_L)²
    with a constant step_lr and the smallest level σ̃_L, takes three steps per level (`inner` = 3), and starts from
    numbers uniform in [0, 1); this one starts from σ̃_T z.

    Raises ValueError unless 0 < step < 2 and inner ≥ 1.
    """

    needs_signal = True

    def __init__(self, annealing: Annealing, step_size: float = 1.0, inner: int = 1) -> None:
        if not 0.0 < step_size < 2.0:
            raise ValueError(f"the Langevin step diverges outside 0 < step_size < 2, got {step_size}; set solver.step_size")
        if inner < 1:
            raise ValueError(f"a level needs at least one Langevin step, got inner={inner}; set solver.inner")
        self.annealing, self.step_size, self.inner = annealing, step_size, inner

    def init(self, problem: Problem, start: NoiseLevel) -> Tensor:
        return start.noise_to_signal * problem.rng.normal(problem.like)

    def step(self, state: Tensor, step: Step, problem: Problem) -> tuple[Tensor, Tensor, Info]:
        x, now = state, step.now
        level = NoiseLevel(now.t, 1.0, now.noise_to_signal)
        weight = self.annealing(level, problem.measurement.sigma_y)
        eta = self.step_size / (1.0 / level.sigma**2 + 2.0 * weight)
        for _ in range(self.inner):
            x0 = problem.denoiser(now.alpha * x, now).x0
            drift = level.score(x, x0) - weight * problem.measurement.squared_residual_gradient(x)
            x = x + eta * drift + (2.0 * eta) ** 0.5 * problem.rng.normal(x)
        if step.then.sigma == 0.0:
            x = problem.denoiser(now.alpha * x, now).x0
        return x, x0, {}
