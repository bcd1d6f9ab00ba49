"""Samplers under solvers: estimates that keep their own ε̂, shifts between steps, and the law of samples."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from configured import make_sampler, options
from gaussian_prior import make_setting, with_rng
from one_dimension import ENDS, PRIOR_VARIANCE, width_of

from diffusion_priors.diffusion.denoiser import Denoised
from diffusion_priors.diffusion.grids import LogSNR, Trailing
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.multistep import DPMSolver2MSDE, UniPC
from diffusion_priors.diffusion.samplers import Sampler
from diffusion_priors.diffusion.schedules import Linear
from diffusion_priors.diffusion.transitions import FixedSmall
from diffusion_priors.operators.identity import Identity
from diffusion_priors.operators.noise_models import Gaussian
from diffusion_priors.solvers.base import NotApplicable
from diffusion_priors.solvers.ddnm import DDNM
from diffusion_priors.solvers.repaint import RePaint
from diffusion_priors.solvers.unconditional import Unconditional

SAMPLERS = options("sampler")
FLOWS = ["ddim", "euler", "heun", "dpmpp_2m", "unipc"]
"""Those that follow the probability flow."""
START = torch.tensor([0.4, -1.0, 2.0, 1.5], dtype=torch.float64).view(1, 1, 1, 4)
LEVELS = Trailing(8)(Linear())


class Fixed:
    """The same draw at every step."""

    def normal(self, like):
        return 0.3 * torch.ones_like(like)


def smooth(x: torch.Tensor, level: NoiseLevel) -> Denoised:
    fraction = torch.full_like(x, 0.4)
    return Denoised(torch.tanh(x.flip(-1) * (0.5 + level.alpha)) + 0.2 * x, fraction)


def own_eps(x: torch.Tensor, level: NoiseLevel) -> Denoised:
    denoised = smooth(x, level)
    return denoised._replace(eps=level.eps(x, denoised.x0))


def walk(sampler: Sampler, estimate, shift: float = 0.0) -> torch.Tensor:
    """From START along LEVELS; `shift` is added after the third step, as a solver does that guides between steps."""
    x, memory = START, sampler.start()
    for index, (now, then) in enumerate(pairwise(LEVELS[:-1])):
        x, memory = sampler.step(estimate(x, now), estimate, x, now, then, Fixed(), memory)
        x = x + shift if index == 2 else x
    return x


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_noise_estimate_equal_to_the_one_that_follows_changes_nothing(name):
    found, wanted = (walk(make_sampler(name), estimate) for estimate in (own_eps, smooth))
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", FLOWS)
def test_a_shift_between_two_steps_is_kept(name):
    """Where x̂0 does not depend on x_t, the flow carries a shift on as noise: it shrinks with σ, whatever was corrected."""

    def of_the_level(x: torch.Tensor, level: NoiseLevel) -> Denoised:
        return Denoised(torch.full_like(x, level.alpha**2))

    change = walk(make_sampler(name), of_the_level, shift=0.7) - walk(make_sampler(name), of_the_level)
    torch.testing.assert_close(change, torch.full_like(change, 0.7 * LEVELS[-2].sigma / LEVELS[3].sigma), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", SAMPLERS)
def test_calls_of_a_step(name):
    calls = []

    def counted(x: torch.Tensor, level: NoiseLevel) -> Denoised:
        calls.append(level)
        return smooth(x, level)

    walk(make_sampler(name), counted)
    assert len(calls) == (2 if name == "heun" else 1) * (len(LEVELS) - 2)


def ddnm(name: str, steps: int) -> torch.Tensor:
    """DDNM from a fixed start, which keeps the network's ε̂ and moves x̂0."""
    setting = make_setting("random mask", sampler=make_sampler(name))
    solver, rng = DDNM(), np.random.default_rng(3)
    z = torch.from_numpy(rng.normal(size=tuple(setting.problem.like.shape)))

    class Start:
        def normal(self, like):
            return z

    plan = solver.plan(LogSNR(steps), setting.schedule)
    return solver.solve(with_rng(setting.problem, Start()), plan).x0


@pytest.mark.parametrize("name", FLOWS[2:])
def test_ddnm_has_one_limit_under_every_flow(name):
    """A solver that keeps the network's ε̂ ends nearer to where it ends with DDIM, the more steps there are."""
    apart = [(ddnm(name, steps) - ddnm("ddim", steps)).abs().max().item() for steps in (15, 150)]
    assert apart[1] < 0.015 and apart[1] < 0.1 * apart[0], apart


LOST = np.sqrt(PRIOR_VARIANCE / (PRIOR_VARIANCE + np.exp(-2.0 * ENDS)))
"""The width of x̂0 at the last level, relative to that of x0: what a last step without noise can have."""


@pytest.mark.parametrize(("sampler", "order", "at_160"), [(FixedSmall(), 1, 0.025), (DPMSolver2MSDE(), 2, 5e-4)], ids=["ddpm", "2m sde"])
def test_the_width_of_samples_converges_at_the_weak_order(sampler, order, at_160):
    """Exact widths, from the affine maps of one dimension: 0.978 and 1.0017 of the prior's at 80 steps."""
    errors = {n: abs(width_of(Unconditional(), n, 0.0, 1.0, sampler).ratio / LOST - 1.0) for n in (40, 80, 160)}
    slopes = [np.log2(errors[n] / errors[2 * n]) for n in (40, 80)]
    assert slopes == pytest.approx([order, order], abs=0.1)
    assert errors[160] < at_160 * 1.1


def test_the_flow_of_unipc_has_the_priors_width():
    for steps, tolerance in ((20, 0.006), (40, 1e-3), (80, 1e-4)):
        assert width_of(Unconditional(), steps, 0.0, 1.0, UniPC()).ratio / LOST == pytest.approx(1.0, abs=tolerance)


@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m", "dpmpp_2m_sde", "unipc"])
def test_a_solver_that_needs_a_density_refuses_the_others(name):
    sampler = make_sampler(name)
    with pytest.raises(
        NotApplicable, match=rf"^RePaint moves .*, and {type(sampler).__name__} has none; use sampler=ddpm or sampler=ddim$"
    ):
        RePaint().check(Identity(), Gaussian(), sampler)
