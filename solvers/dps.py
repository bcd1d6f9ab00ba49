"""Diffusion posterior sampling (Chung et al. 2023)."""

from __future__ import annotations

from math import inf

from solvers.base import Solver


class DPS(Solver):
    """x_{t−1} = x'_{t−1} − ζ ∇_{x_t} ‖y − A x̂0(x_t)‖₂, x'_{t−1} the unconditional step on the same x̂0 (Chung et al. 2023, Alg. 1).

    `zeta` is the official code's: the norm is not squared. The paper's Alg. 1 has ζ_t ∇‖·‖₂² with ζ_t = ζ'/‖·‖₂,
    which is 2 ζ' ∇‖·‖₂, so that its ζ' is half of ours; its published values and the code's are not that far
    apart, and neither reproduces the other. The norm is per image; the official code's runs over the batch.
    x̂0 is clamped inside the graph (prior.clip), as in the code. The code's values on FFHQ at 256 x 256 with 1000
    steps: 0.5 for inpainting, 0.3 for deblurring and super-resolution; the default suits the bundled prior, whose
    runs have fewer steps.

    Raises ValueError for a negative zeta.
    """

    needs_gradient = True

    def __init__(self, zeta: float = 1.0) -> None:
        if not 0.0 <= zeta < inf:
            raise ValueError(f"the step size must be finite and not negative, got zeta={zeta}; set solver.zeta")
        self.zeta = zeta

    def step(self, x, now, then, problem):
        x0, fraction, gradient = problem.guidance(x, now)
        moved = problem.transition(x, x0, now, then, problem.noise, fraction)
        return moved.sub_(gradient, alpha=self.zeta), x0
