"""Plug-and-play diffusion models by split Gibbs sampling (Wu et al. 2024)."""

from __future__ import annotations

from math import inf

from torch import Tensor

from diffusion_priors.diffusion.grids import Grid
from diffusion_priors.diffusion.levels import CLEAN, NoiseLevel
from diffusion_priors.diffusion.samplers import Sampler
from diffusion_priors.diffusion.schedules import Schedule
from diffusion_priors.operators.requirements import LINEAR
from diffusion_priors.solvers.base import Info, Problem, Solver, Step
from diffusion_priors.solvers.gaussian_product import sample_product


class PnPDM(Solver):
    """z ~ p(y | z) N(z; x, ρ² I), then x ~ p(x) N(z; x, ρ² I), ρ = max(ρ₀ γᵏ, ρ_min) in iteration k (Wu et al. 2024, Alg. 1).

    The first draw is exact, by a perturbed linear system. The second is a walk of the prior from z at the level whose σ/α is ρ,
    down the levels of the grid, by any sampler; ρ is that level's own, where the authors' code starts at the grid's level below
    it without rescaling. The stationary law has y and x further apart than the posterior by ρ_min, so that ρ_min trades exactness for
    speed of mixing. The paper has ρ₀ = 10, γ = 0.9, ρ_min = 0.3 and 100 iterations, of which it averages the last
    60; this returns the last x, which is a sample.

    Raises ValueError for values out of bounds.
    """

    requires = (LINEAR,)
    sampler_type = Sampler

    def __init__(self, iterations: int = 100, first: float = 10.0, decay: float = 0.9, smallest: float = 0.3) -> None:
        if iterations < 1:
            raise ValueError(f"the sampler needs at least one iteration, got iterations={iterations}; set solver.iterations")
        if not (0.0 < smallest <= first < inf and 0.0 < decay <= 1.0):
            raise ValueError(
                f"rho needs 0 < smallest ≤ first and 0 < decay ≤ 1, got smallest={smallest}, first={first}, decay={decay}; set solver.*"
            )
        self.iterations, self.first, self.decay, self.smallest = iterations, first, decay, smallest

    def plan(self, grid: Grid, schedule: Schedule) -> list[Step]:
        levels = grid(schedule)[:-1]
        starts = [schedule.at(max(self.first * self.decay**k, self.smallest)) for k in range(self.iterations)]

        def below(start: NoiseLevel) -> tuple[NoiseLevel, ...]:
            return tuple(level for level in levels if level.noise_to_signal < start.noise_to_signal)

        return [Step(start, CLEAN, below(start)) for start in starts]

    def init(self, problem: Problem, start: NoiseLevel) -> Tensor:
        """x = 0, far inside the first ρ."""
        return 0.0 * problem.like

    def step(self, state: Tensor, step: Step, problem: Problem) -> tuple[Tensor, Tensor, Info]:
        z = sample_product(state, step.now.noise_to_signal**2, problem.measurement, problem.rng)
        x, level, memory = step.now.alpha * z, step.now, problem.sampler.start()
        for then in (*step.inner, step.then):
            x, memory = problem.sampler.step(problem.denoiser(x, level), problem.denoiser, x, level, then, problem.rng, memory)
            level = then
        return x, x, {}
