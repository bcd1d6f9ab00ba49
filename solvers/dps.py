"""Diffusion posterior sampling (Chung et al. 2023)."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from diffusion_priors.diffusion.reference_levels import levels_crossed, state_scale
from diffusion_priors.solvers.base import Guided, Info, Problem, Step, Walk


class DPS(Guided):
    """x_s = x'_s − η g, g = ∇_{x_t} ‖y − A x̂0(x_t)‖₂, x'_s the unconditional step on the same x̂0 (Chung et al. 2023, Alg. 1: η = ζ).

    η = min(ζ n, ‖y − A x̂0‖/‖g‖²), an image's own. n is the number of levels that the step crosses, counted in the linear
    schedule of a thousand steps (`levels_crossed`): the paper takes all of them, so n is 1 there; 250 steps give n = 4. A
    step that skips levels thereby makes the moves of those that it skips, and one ζ holds for any number of steps, any
    grid and any schedule. The second value is where the linearised residual becomes zero (Polyak's step), which a step
    must not pass; it is at work where steps are few. Where α² + σ² ≠ 1, as for VE, both are those of x_t/√(α² + σ²).
    `per_level=False` takes n = 1 at every step, `limit=False` leaves out the second value: with both this is the
    official code, where ζ must grow by hand as steps become fewer.

    `zeta` is the official code's: the norm is not squared. The paper's Alg. 1 has ζ_t ∇‖·‖₂² with ζ_t = ζ'/‖·‖₂,
    which is 2 ζ' ∇‖·‖₂: a ζ' of 1 there is a zeta of 2 here, and the code's values are not the paper's. They are,
    on FFHQ at 256 x 256, 0.5 for inpainting and 0.3 for deblurring and super-resolution. The norm is per image; the
    code's runs over the batch. x̂0 is clamped inside the graph (prior.clip), as in the code.

    Raises ValueError for a negative zeta.
    """

    def __init__(self, zeta: float = 0.25, per_level: bool = True, limit: bool = True) -> None:
        if not 0.0 <= zeta < inf:
            raise ValueError(f"the step size must be finite and not negative, got zeta={zeta}; set solver.zeta")
        self.zeta, self.per_level, self.limit = zeta, per_level, limit

    def step(self, state: Walk, step: Step, problem: Problem) -> tuple[Walk, Tensor, Info]:
        denoised, pull_back = problem.denoiser.linearise(state.x, step.now)
        norm, gradient_x0 = problem.measurement.norm_with_gradient(denoised.x0)
        gradient = pull_back(gradient_x0)
        moved = self.move(state, step, denoised, problem)
        return moved._replace(x=moved.x - self.step_size(step, norm, gradient) * gradient), denoised.x0, {}

    def step_size(self, step: Step, norm: Tensor, gradient: Tensor) -> Tensor | float:
        """η for ‖y − A x̂0‖₂ (B,) and its gradient (B, C, H, W) at `step.now`: a number, or (B, 1, 1, 1) with the limit."""
        now, then = state_scale(step.now), state_scale(step.then)
        size = self.zeta * (levels_crossed(step.now, step.then) * now * then if self.per_level else 1.0)
        if not self.limit:
            return size
        slope = gradient.flatten(1).square().sum(1)
        zero = torch.where(slope > 0.0, norm / slope, inf)
        return (zero * then / now).clamp_max(size).view(-1, 1, 1, 1)
