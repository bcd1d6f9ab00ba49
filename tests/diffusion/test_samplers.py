"""Samplers: measured orders of convergence, closed forms, and diffusers' schedulers step by step."""

from __future__ import annotations

from itertools import pairwise
from math import exp, log, sqrt

import numpy as np
import pytest
import torch

from diffusion_priors.diffusion.denoiser import Denoised
from diffusion_priors.diffusion.grids import Karras, Trailing
from diffusion_priors.diffusion.levels import CLEAN, NoiseLevel
from diffusion_priors.diffusion.multistep import DPMSolver2M, UniPC
from diffusion_priors.diffusion.samplers import Euler, Heun, deterministic
from diffusion_priors.diffusion.schedules import VE, Flow, Linear
from diffusion_priors.diffusion.transitions import DDIM

VARIANCES = torch.tensor([0.05, 0.3, 1.0, 2.5], dtype=torch.float64).view(1, 1, 1, 4)
"""Of independent pixels x0 ~ N(0, v), whose probability flow is x_s = x_t √(v α_s² + σ_s²)/√(v α_t² + σ_t²)."""


def estimate(x, level: NoiseLevel) -> Denoised:
    """x̂0 = α v x/(α² v + σ²)."""
    return Denoised(level.alpha * VARIANCES * x / (level.alpha**2 * VARIANCES + level.sigma**2))


def walk(sampler, levels, x, estimate=estimate):
    memory = sampler.start()
    for now, then in pairwise(levels):
        x, memory = sampler.step(estimate(x, now), estimate, x, now, then, None, memory)
    return x


def spread(level) -> torch.Tensor:
    return (VARIANCES * level.alpha**2 + level.sigma**2).sqrt()


LADDERS = {  # levels between two ends, at equal distances of log σ/α, for VP, VE and flow
    "vp": lambda u: NoiseLevel(u, 1 / sqrt(1 + u**2), u / sqrt(1 + u**2)),
    "ve": lambda u: VE(1e-4, 1e3).level(u),
    "flow": lambda u: Flow(1e-4, 1.0).level(u / (1 + u)),
}


SPACINGS = {  # σ/α of n + 1 levels; with the second one no two steps have the same length in log σ/α
    "log": lambda n: np.geomspace(20.0, 0.05, n + 1),
    "cube root": lambda n: np.linspace(20.0 ** (1 / 3), 0.05 ** (1 / 3), n + 1) ** 3,
}
ORDERS = [(DDIM(), 1), (Euler(), 1), (Heun(), 2), (DPMSolver2M(), 2), (UniPC(), 3)]


def error(sampler, ladder, ratios) -> float:
    levels = [ladder(ratio) for ratio in ratios]
    start = spread(levels[0])
    return (walk(sampler, levels, start) / spread(levels[-1]) - 1).abs().max().item()


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("kind", LADDERS)
@pytest.mark.parametrize(("sampler", "order"), ORDERS, ids=lambda s: type(s).__name__)
def test_measured_orders_of_convergence(sampler, order, kind, spacing):
    """The error against the exact probability flow falls as steps^−order: UniPC-2's corrector makes it third order."""
    steps = [20, 40, 80, 160]
    errors = [error(sampler, LADDERS[kind], SPACINGS[spacing](n)) for n in steps]
    slope = np.polyfit(np.log(steps[1:]), np.log(errors[1:]), 1)[0]
    assert -order - 0.25 < slope < -order + 0.15


MODES, WIDTH = torch.tensor([-0.6, 0.8], dtype=torch.float64), 0.04
"""Of a mixture of two Gaussians, whose x̂0 bends in x."""


def of_two_modes(x, level: NoiseLevel) -> Denoised:
    """x̂0 = Σ_k r_k (m_k + α v (x − α m_k)/(α² v + σ²)), r_k ∝ N(x; α m_k, α² v + σ²)."""
    total, away = level.alpha**2 * WIDTH + level.sigma**2, x[..., None] - level.alpha * MODES
    chances = (-0.5 * away**2 / total).softmax(-1)
    return Denoised((chances * (MODES + level.alpha * WIDTH / total * away)).sum(-1))


def test_orders_hold_where_x0_is_not_linear_in_x():
    """Against 1000 steps of UniPC. At 10, 20 and 40 steps UniPC is the best of all."""

    def end(sampler, steps):
        levels = [LADDERS["vp"](ratio) for ratio in np.geomspace(20.0, 0.05, steps + 1)]
        start = torch.tensor([-1.1, -0.4, 0.3, 1.2], dtype=torch.float64).view(1, 1, 1, 4)
        return walk(sampler, levels, start, of_two_modes)

    exact = end(UniPC(), 1000)
    errors = {type(s).__name__: [(end(s, n) - exact).abs().max().item() for n in (10, 20, 40, 80, 160)] for s, _ in ORDERS}
    for sampler, order in ORDERS:
        assert np.log2(errors[type(sampler).__name__][-2] / errors[type(sampler).__name__][-1]) == pytest.approx(order, abs=0.25)
    for found in list(zip(*errors.values(), strict=True))[:3]:
        assert min(found) == found[-1]


def test_heun_asks_twice_a_step_and_once_in_the_last():
    calls = []

    def counted(x, level):
        calls.append(level)
        return estimate(x, level)

    levels = Trailing(5)(Linear())
    x = torch.ones(1, 1, 1, 4, dtype=torch.float64)
    for now, then in pairwise(levels):
        x, _ = Heun().step(counted(x, now), counted, x, now, then, None, None)
    assert len(calls) == 2 * 4 + 1
    assert levels[-1] is CLEAN


def test_heun_is_edms_algorithm_in_sigma():
    """x' = x + (σ' − σ) d, x_s = x + (σ' − σ)(d + d')/2, d = (x − x̂0)/σ, for α = 1 (Karras et al. 2022, Alg. 1)."""
    now, then = VE().level(3.0), VE().level(1.2)
    x = torch.tensor([0.4, -1.0, 2.0, 5.0], dtype=torch.float64).view(1, 1, 1, 4)
    d = (x - estimate(x, now).x0) / 3.0
    euler = x + (1.2 - 3.0) * d
    second = (euler - estimate(euler, then).x0) / 1.2
    wanted = x + (1.2 - 3.0) * (d + second) / 2
    found, _ = Heun().step(estimate(x, now), estimate, x, now, then, None, None)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_two_step_multistep_is_the_papers_algorithm():
    """x_s = (σ_s/σ_t) x − α_s (e^{−h} − 1) D, D = (1 + 1/2r) x̂0 − x̂0'/2r, r = h'/h (Lu et al. 2022, Alg. 2)."""
    levels = Trailing(4)(Linear())
    x = torch.tensor([0.4, -1.0, 2.0, 5.0], dtype=torch.float64).view(1, 1, 1, 4)
    lam = [log(level.alpha / level.sigma) for level in levels[:3]]
    first = estimate(x, levels[0]).x0
    x1 = levels[1].sigma / levels[0].sigma * x - levels[1].alpha * (exp(-(lam[1] - lam[0])) - 1) * first
    r = (lam[1] - lam[0]) / (lam[2] - lam[1])
    d = (1 + 1 / (2 * r)) * estimate(x1, levels[1]).x0 - first / (2 * r)
    wanted = levels[2].sigma / levels[1].sigma * x1 - levels[2].alpha * (exp(-(lam[2] - lam[1])) - 1) * d
    torch.testing.assert_close(walk(DPMSolver2M(), levels[:3], x), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sampler", [sampler for sampler, _ in ORDERS], ids=lambda s: type(s).__name__)
def test_a_walk_may_start_without_any_signal(sampler):
    """A flow's t = 1: α = 0. The step from there is finite and the walk ends at the clean image's law, roughly."""
    levels = [Flow().level(1.0), *Karras(40, largest=50.0, smallest=1e-3)(Flow())]
    x = torch.full((1, 1, 1, 4), 1.0, dtype=torch.float64)
    assert levels[0].alpha == 0.0
    found = walk(sampler, levels, x)
    assert found.isfinite().all()
    torch.testing.assert_close(found, VARIANCES.sqrt().expand_as(found), rtol=0.15, atol=0.0)


def test_the_deterministic_step_is_ddims():
    x = torch.tensor([0.4, -1.0, 2.0, 5.0], dtype=torch.float64).view(1, 1, 1, 4)
    now, then = Linear().level(700), Linear().level(500)
    found, _ = DDIM().step(estimate(x, now), estimate, x, now, then, None, None)
    assert torch.equal(deterministic(x, estimate(x, now), now, then), found)
