"""What DiffPIR and DDiff share: a proximal step whose weight follows the noise level."""

from __future__ import annotations

from math import inf

from torch import Tensor

from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.solvers.base import Guided, Problem


class Proximal(Guided):
    """prox(z) = argmin_x ½‖y − A x‖² + ρ/2 ‖x − z‖², ρ = λ σ_y²/u², u = σ_t/α_t.

    It is in closed form or by conjugate gradients where A is linear, by `iterations` of nonlinear ones otherwise.

    Raises ValueError where λ is not positive or `iterations` is below 1.
    """

    def __init__(self, lam: float, iterations: int) -> None:
        if not 0.0 < lam < inf:
            raise ValueError(f"the weight of the prior must be positive and finite, got lam={lam}; set solver.lam")
        if iterations < 1:
            raise ValueError(f"the proximal step needs at least one iteration, got iterations={iterations}; set solver.iterations")
        self.lam, self.iterations = lam, iterations

    def prox(self, z: Tensor, level: NoiseLevel, problem: Problem) -> Tensor:
        weight = self.lam * problem.measurement.sigma_y**2 / level.noise_to_signal**2
        return problem.measurement.prox(z, weight, self.iterations)
