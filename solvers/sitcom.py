"""SITCOM: step-wise triple-consistent sampling (Alkhouri et al. 2025)."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.reference_levels import state_scale
from diffusion_priors.solvers.adam import Moments
from diffusion_priors.solvers.base import Info, Problem, Solver, Step
from diffusion_priors.solvers.state import rows_of


class SITCOM(Solver):
    """v ≈ argmin ‖y − A x̂0(v)‖₂² from v = x_t, x_s = α_s x̂0(v) + σ_s z, z fresh (SITCOM, Alkhouri et al. 2025, Alg. 1).

    The minimum is approached through the network by at most `iterations` of Adam with step `lr`; where α² + σ² ≠ 1, as for VE, a step
    is one of v/√(α² + σ²). An image stops once
    ‖y − A x̂0(v)‖² ≤ σ_y² m, m numbers measured, and is kept while others continue: its own discrepancy decides, not the ground
    truth. The official code stops at (σ_y + 0.001)² m, returns the x̂0 before its last step of Adam, keeps the restoration
    with the best PSNR against the ground truth, and has lr = 0.02, 30 iterations and 20 levels: take grid.steps=20.

    A step costs at most `iterations` + 1 network calls and `iterations` vector-Jacobian products, as many as the image of the batch that
    needs most; `iterations` in the records is an image's own. Raises ValueError where lr is not positive or there is no iteration.
    """

    betas = (0.9, 0.999)

    def __init__(self, lr: float = 0.02, iterations: int = 30) -> None:
        if not 0.0 < lr < inf:
            raise ValueError(f"the step of Adam must be positive and finite, got lr={lr}; set solver.lr")
        if iterations < 1:
            raise ValueError(f"Adam needs at least one iteration, got iterations={iterations}; set solver.iterations")
        self.lr, self.iterations = lr, iterations

    def step(self, state: Tensor, step: Step, problem: Problem) -> tuple[Tensor, Tensor, Info]:
        x0, taken = self.consistent(state, step.now, problem)
        then = step.then
        return (x0 if then.sigma == 0.0 else then.diffuse(x0, problem.rng.normal(x0))), x0, {"iterations": taken}

    def consistent(self, v: Tensor, level: NoiseLevel, problem: Problem) -> tuple[Tensor, Tensor]:
        """x̂0(v) and the iterations that each image took, (B,)."""
        measurement, moments = problem.measurement, Moments.zero(v)
        scale, radius = state_scale(level), measurement.sigma_y.flatten() * measurement.count.sqrt()
        active = torch.ones_like(radius, dtype=torch.bool)
        taken = torch.zeros_like(radius)
        for _ in range(self.iterations):
            denoised, pull_back = problem.denoiser.linearise(v, level)
            norm, gradient = measurement.norm_with_gradient(denoised.x0)
            active = active & (norm > radius)
            if not active.any():
                return denoised.x0, taken
            moments, direction = moments.after(scale * pull_back(2.0 * norm.view(-1, 1, 1, 1) * gradient), *self.betas)
            v = rows_of(active, v - self.lr * scale * direction, v)
            taken = taken + active
        return problem.denoiser(v, level).x0, taken
