"""Denoising diffusion restoration models (Kawar et al. 2022)."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.operators.measurement import Measurement
from diffusion_priors.operators.requirements import SPECTRUM
from diffusion_priors.solvers.base import Info, Problem, Solver, Step


class DDRM(Solver):
    """x̄_s = Vᴴx_s/α_s, coefficient by coefficient, with x̄0 = Vᴴx̂0, ȳ = S⁺Uᴴy, u = σ_s/α_s (Kawar et al. 2022, Eq. 7–8):

    s = 0            x̄_s = x̄0 + √(1 − η²) u ε̂ + η u z
    0 < s u < σ_y    x̄_s = x̄0 + √(1 − η²) u (Uᴴy − s x̄0)/σ_y + η u z
    s u ≥ σ_y        x̄_s = (1 − η_b) x̄0 + η_b ȳ + √(u² − η_b² σ_y²/s²) z

    It starts from ȳ plus the noise that is missing where s u_T ≥ σ_y, from noise elsewhere. Everything is multiplied by α_s,
    so that nothing is divided by an α of 0. The official code takes neither branch where s u = σ_y, which without noise
    leaves the data out of the last step; here that is the third branch. ε̂ follows from x̂0; V is orthogonal, so z is
    drawn in the image. The paper takes 20 steps; σ_y is that of Gaussian noise.

    The second branch puts the noise of y in the place of ε̂, the same at every step. Singular values up to `cutoff` σ_y, where y
    says little, count as 0: those coefficients then keep ε̂. The paper has a cutoff of 0, the code of DeepInverse 0.5.

    Raises ValueError where η or η_b lies outside [0, 1], and for a negative cutoff.
    """

    requires = (SPECTRUM,)

    def __init__(self, eta: float = 0.85, eta_b: float = 1.0, cutoff: float = 0.0) -> None:
        for name, value in (("eta", eta), ("eta_b", eta_b)):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], got {value}; set solver.{name}")
        if not 0.0 <= cutoff < inf:
            raise ValueError(f"the cutoff must be finite and not negative, got {cutoff}; set solver.cutoff")
        self.eta, self.eta_b, self.cutoff = eta, eta_b, cutoff

    def singular_values(self, measurement: Measurement) -> Tensor:
        """Those of A above the cutoff, and 0."""
        s = measurement.linear_operator.spectrum().s
        return torch.where(s > self.cutoff * measurement.sigma_y, s, 0.0)

    def init(self, problem: Problem, start: NoiseLevel) -> Tensor:
        measurement, spectrum = problem.measurement, problem.measurement.linear_operator.spectrum()
        s, noise = self.singular_values(measurement), start.alpha * measurement.sigma_y
        z = spectrum.analyse(problem.rng.normal(problem.like))
        seen = (s > 0.0) & (s * start.sigma >= noise)
        target = torch.where(seen, start.alpha * spectrum.measured(measurement.y) / s, 0.0)
        left = torch.where(seen, start.sigma**2 - (noise / s) ** 2, start.sigma**2)
        return spectrum.synthesise(target + left.clamp_min(0.0).sqrt() * z)

    def step(self, state: Tensor, step: Step, problem: Problem) -> tuple[Tensor, Tensor, Info]:
        (now, then, _), measurement, spectrum = step, problem.measurement, problem.measurement.linear_operator.spectrum()
        s, noise, keep = self.singular_values(measurement), then.alpha * measurement.sigma_y, (1.0 - self.eta**2) ** 0.5
        x0 = problem.denoiser(state, now).x0
        mean, measured = spectrum.analyse(x0), spectrum.measured(measurement.y)
        z = spectrum.analyse(problem.rng.normal(problem.like))
        seen = (s > 0.0) & (s * then.sigma >= noise)

        eps = torch.where(s > 0.0, (measured - s * mean) / measurement.sigma_y, spectrum.analyse(now.eps(state, x0)))
        unseen = then.alpha * mean + then.sigma * (keep * eps + self.eta * z)
        left = then.sigma**2 - (self.eta_b * noise / s) ** 2
        kept = then.alpha * ((1.0 - self.eta_b) * mean + self.eta_b * measured / s) + left.clamp_min(0.0).sqrt() * z
        return spectrum.synthesise(torch.where(seen, kept, unseen)), x0, {}
