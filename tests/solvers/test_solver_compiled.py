"""Every configured solver with a compiled network: the same result as without.

The walks are in float64. In float32, `lgd_mc` and `dps_score` enlarge rounding to 0.03 in four steps, and no tolerance could tell it
from an error. Here the tolerance is 1e-8 of the image's largest value for all.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from configured import SCHEDULE, SHAPE, make_operator, make_problem, make_solver, options
from small_denoiser import NearlyGaussian
from torch import nn

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.grids import Linspace
from diffusion_priors.diffusion.preconditioning import Eps
from diffusion_priors.diffusion.priors.base import Prior

COMPILER = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"torch.compile needs a C++ compiler, and there is no {COMPILER}"),
]
"""The compiler takes 20 s and more, once for all solvers."""


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> Iterator[tuple[nn.Module, nn.Module]]:
    """A network and the same compiled: once for calls with a gradient and once for calls without, for any number of rows."""
    from diffusion_priors.runs.trainer import TrainerSettings  # imports Lightning

    eager = NearlyGaussian().double().requires_grad_(False)
    compiled = deepcopy(eager)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        TrainerSettings("cpu", compile=True, channels_last=False).prepare(compiled)
        for gradient in (False, True):
            x, t = torch.zeros(4, *SHAPE, dtype=torch.float64, requires_grad=gradient), torch.full((4,), 500)
            for tensor in (x, t):
                torch._dynamo.mark_dynamic(tensor, 0)
            with torch.set_grad_enabled(gradient):
                output = compiled(x, t)
            if gradient:
                output.sum().backward()
        torch._dynamo.utils.counters.clear()
        yield eager, compiled
    torch._dynamo.reset()


def restored(name: str, network: nn.Module, folder) -> torch.Tensor:
    solver, denoiser = make_solver(name), Denoiser(Prior(network, SCHEDULE, Eps(), SHAPE[1:]))
    problem = make_problem(make_operator("inpaint_box", folder), [0, 1], denoiser=denoiser)
    solution = solver.solve(problem, solver.plan(Linspace(4), SCHEDULE))
    assert solution.failed_at == [None, None]
    return solution.x0


@pytest.mark.parametrize("name", options("solver"))
def test_a_compiled_network_gives_the_same_result(name, networks, tmp_path):
    """Those of several vector-Jacobian products of one call too: mmps, tmpd."""
    eager, compiled = (restored(name, network, tmp_path) for network in networks)
    torch.testing.assert_close(compiled, eager, rtol=0.0, atol=1e-8 * max(1.0, eager.abs().max().item()))


def test_no_solver_compiled_the_network_again(networks):
    """Other numbers of rows (particles, samples) and other gradient modes meet code that is there."""
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 0
