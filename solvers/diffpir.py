"""DiffPIR: plug-and-play restoration with a diffusion denoiser (Zhu et al. 2023)."""

from __future__ import annotations

from torch import Tensor

from diffusion_priors.diffusion.denoiser import Denoised
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.solvers.base import Problem
from diffusion_priors.solvers.proximal import Proximal


class DiffPIR(Proximal):
    """x̃0 = argmin_x ‖y − A x‖²/(2 σ_y²) + (λ/2) ‖x − x̂0‖²/u², u = σ_t/α_t (Zhu et al. 2023, Alg. 1), i.e. prox with ρ = λ σ_y²/u².

    The sampler then moves on x̃0, and ε̂ follows it: ε̂ = (x_t − α_t x̃0)/σ_t. The paper's move is sampler=renoise with its ζ,
    which solver=diffpir selects; every other sampler works too. In the paper λ is 1 to 8 and ζ 0.3 to 1 on FFHQ with 100
    steps. Its code has λ = 7; λ = 1 follows y more closely. The levels of the code are t = T − T √(i/n), i = 0 … n, sparse
    where noise is high; those of grid=quadratic are t = T (1 − i/n)². The proximal step is in closed form or by conjugate
    gradients where A is linear. Otherwise `iterations` of nonlinear ones go from x̂0 towards a local minimum. It assumes
    Gaussian noise; without noise it is the projection onto A x = y for a linear A.

    Raises ValueError where λ is not positive or `iterations` is below 1.
    """

    def __init__(self, lam: float = 1.0, iterations: int = 20) -> None:
        super().__init__(lam, iterations)

    def estimate(self, x: Tensor, level: NoiseLevel, problem: Problem) -> Denoised:
        denoised = problem.denoiser(x, level)
        return denoised._replace(x0=self.prox(denoised.x0, level, problem))
