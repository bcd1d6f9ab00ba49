"""Every configured solver with a network in bf16: the result changes by what rounding explains, and by no more."""

from __future__ import annotations

import pytest
import torch
from configured import SCHEDULE, SHAPE, make_operator, make_problem, make_solver, options
from small_denoiser import NearlyGaussian
from torch import Tensor, nn

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.grids import Linspace
from diffusion_priors.diffusion.preconditioning import Eps
from diffusion_priors.diffusion.priors.base import Prior


class Rounded(NearlyGaussian):
    """ε̂ in float32, rounded to the eight bits of bf16 at the end alone. Its gradient is that of ε̂."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        eps = super().forward(x, t)
        return eps + (eps.to(torch.bfloat16).to(eps.dtype) - eps).detach()


def restored(name: str, network: nn.Module, autocast: torch.dtype | None, folder) -> tuple[Tensor, int]:
    solver, denoiser = make_solver(name), Denoiser(Prior(network, SCHEDULE, Eps(), SHAPE[1:]), autocast)
    problem = make_problem(make_operator("inpaint_box", folder), [0, 1], denoiser=denoiser, dtype=torch.float32)
    solution = solver.solve(problem, solver.plan(Linspace(4), SCHEDULE))
    assert solution.failed_at == [None, None]
    return solution.x0, solution.vjps


@pytest.mark.parametrize("name", [name for name in options("solver") if name != "pnp_dm"])  # 220 calls
def test_bf16_changes_a_result_as_rounding_the_noise_estimate_does(name, tmp_path):
    """By no more than 1.25 times as much (root mean square) without gradients, and 16 times with them.

    Rounding ε̂ by 2⁻⁹ moves x̂0 by 2⁻⁹ σ/α; the solver decides what becomes of it. bf16 also rounds the Jacobian, which `Rounded` does not.
    """
    (full, _), (rounded, _) = (restored(name, network, None, tmp_path) for network in (NearlyGaussian(), Rounded()))
    found, vjps = restored(name, NearlyGaussian(), torch.bfloat16, tmp_path)
    assert found.dtype == torch.float32 and found.isfinite().all()
    change, explained = ((x0 - full).square().mean().sqrt().item() for x0 in (found, rounded))
    assert 0.0 < change < (16.0 if vjps else 1.25) * explained
