"""DDNM for noisy measurements (Wang et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_priors.operators.requirements import SPECTRUM
from diffusion_priors.solvers.base import Info, Problem, Solver, Step


class DDNMPlus(Solver):
    """x_s = α_s (x̂0 − Λ A⁺(A x̂0 − y)) + N, by the coefficients of V, n = α_s σ_y (Wang et al. 2023, Eq. 17–18):

    s = 0            x_s = α_s x̂0 + σ_s (√(1 − η²) ε̂ + η z)
    s σ_s ≥ n        Λ = 1, N = √(σ_s² − n²/s²) z
    0 < s σ_s < n    Λ = s σ_s √(1 − η²)/n, N = η σ_s z

    All the noise that y brings is counted as part of that of x_s. The second branch is taken where s σ_s = n too, so that
    y counts in the last step of a problem without noise. The official code takes 100 steps and η = 0.85. Its time travel
    is off by default and left out here; RePaint has it. Of DDRM with η_b = 1 it differs in nothing but where it starts.

    Raises ValueError where η lies outside [0, 1].
    """

    requires = (SPECTRUM,)

    def __init__(self, eta: float = 0.85) -> None:
        if not 0.0 <= eta <= 1.0:
            raise ValueError(f"eta must lie in [0, 1], got {eta}; set solver.eta")
        self.eta = eta

    def step(self, state: Tensor, step: Step, problem: Problem) -> tuple[Tensor, Tensor, Info]:
        (now, then, _), measurement, spectrum = step, problem.measurement, problem.measurement.linear_operator.spectrum()
        s, noise, keep = spectrum.s, then.alpha * measurement.sigma_y, (1.0 - self.eta**2) ** 0.5
        x0 = problem.denoiser(state, now).x0
        mean, eps = spectrum.analyse(x0), spectrum.analyse(now.eps(state, x0))
        z = spectrum.analyse(problem.rng.normal(problem.like))
        seen, measured = s * then.sigma >= noise, s > 0.0

        share = torch.where(seen, 1.0, s * then.sigma * keep / noise)
        towards = torch.where(measured, share * (spectrum.measured(measurement.y) / s - mean), 0.0)
        left = (then.sigma**2 - (noise / s) ** 2).clamp_min(0.0).sqrt()
        fresh = torch.where(measured, torch.where(seen, left, self.eta * then.sigma) * z, then.sigma * (keep * eps + self.eta * z))
        return spectrum.synthesise(then.alpha * (mean + towards) + fresh), x0, {}
