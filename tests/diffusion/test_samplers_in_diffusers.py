"""Whole runs beside diffusers' schedulers, in double precision; DDPM and DDIM are in test_transitions.

Where diffusers differs: its Euler and Heun hold x/α, and its Heun is called twice a step with its levels repeated. DPM-Solver
and Euler round the state to float32, and SDE-DPM-Solver also draws noise for its last step, which multiplies it by 0. Its grids leave
out other levels. All of that leaves the formulas as they are.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from diffusion_priors.diffusion.denoiser import Denoised
from diffusion_priors.diffusion.grids import Trailing
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.multistep import DPMSolver2M, DPMSolver2MSDE, UniPC
from diffusion_priors.diffusion.samplers import Euler, Heun
from diffusion_priors.diffusion.schedules import Linear

STEPS = 20
LEVELS = Trailing(STEPS)(Linear())
RATIOS = torch.tensor([level.noise_to_signal for level in LEVELS], dtype=torch.float64)
START = torch.tensor([0.4, -1.0, 2.0, 1.5], dtype=torch.float64).view(1, 1, 1, 4)
DRAWS = [torch.randn(START.shape, generator=torch.Generator().manual_seed(i), dtype=torch.float64) for i in range(STEPS)]


@pytest.fixture(scope="module")
def diffusers():
    return pytest.importorskip("diffusers")


def eps(x: torch.Tensor, level: NoiseLevel) -> torch.Tensor:
    """Some smooth ε̂, nonlinear in x, that couples the pixels."""
    return 0.7 * x + 0.3 * torch.tanh(x.flip(-1) * (0.5 + level.t / 1000))


def estimate(x: torch.Tensor, level: NoiseLevel) -> Denoised:
    return Denoised((x - level.sigma * eps(x, level)) / level.alpha)


class Given:
    """Hands out draws."""

    def __init__(self, draws: list[torch.Tensor]) -> None:
        self.draws = list(draws)

    def normal(self, like: torch.Tensor) -> torch.Tensor:
        return self.draws.pop(0)


def ours(sampler) -> list[torch.Tensor]:
    """x at each level reached."""
    x, memory, rng, trace = START, sampler.start(), Given(DRAWS), []
    for now, then in pairwise(LEVELS):
        x, memory = sampler.step(estimate(x, now), estimate, x, now, then, rng, memory)
        trace.append(x)
    return trace


def multistep(scheduler, noisy: bool = False) -> list[torch.Tensor]:
    """The run of a scheduler that holds x_t, on its own levels in double precision."""
    scheduler.set_timesteps(STEPS)
    assert scheduler.timesteps.tolist() == [level.t for level in LEVELS[:-1]]
    scheduler.sigmas, x, trace = RATIOS, START, []
    for level, t, z in zip(LEVELS, scheduler.timesteps, DRAWS, strict=False):
        x = scheduler.step(eps(x, level), t, x, **({"variance_noise": z} if noisy else {})).prev_sample
        trace.append(x.double())
    return trace


def assert_same(found: list[torch.Tensor], wanted: list[torch.Tensor], tolerance: float) -> None:
    for step, (a, b) in enumerate(zip(found, wanted, strict=True)):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=lambda text, step=step: f"step {step}: {text}")


def test_dpmsolver(diffusers):
    scheduler = diffusers.DPMSolverMultistepScheduler(beta_schedule="linear", timestep_spacing="trailing")
    assert_same(ours(DPMSolver2M()), multistep(scheduler), 3e-6)


def test_dpmsolver_sde(diffusers):
    scheduler = diffusers.DPMSolverMultistepScheduler(beta_schedule="linear", timestep_spacing="trailing", algorithm_type="sde-dpmsolver++")
    assert_same(ours(DPMSolver2MSDE()), multistep(scheduler, noisy=True), 3e-6)


def test_unipc(diffusers):
    """diffusers takes the last steps at lower order too, of which there is one here: the step to the noise-free end."""
    scheduler = diffusers.UniPCMultistepScheduler(beta_schedule="linear", timestep_spacing="trailing", solver_type="bh2")
    assert_same(ours(UniPC()), multistep(scheduler), 1e-10)


def test_euler(diffusers):
    scheduler = diffusers.EulerDiscreteScheduler(beta_schedule="linear", timestep_spacing="trailing")
    scheduler.set_timesteps(STEPS)
    scheduler.sigmas, x, trace = RATIOS, START / LEVELS[0].alpha, []
    for (now, then), t in zip(pairwise(LEVELS), scheduler.timesteps, strict=True):
        x = scheduler.step(eps(now.alpha * x, now), t, x).prev_sample.double()
        trace.append(then.alpha * x)
    assert_same(ours(Euler()), trace, 3e-6)


def test_heun(diffusers):
    scheduler = diffusers.HeunDiscreteScheduler(beta_schedule="linear", timestep_spacing="trailing")
    scheduler.set_timesteps(STEPS)
    scheduler.sigmas = torch.cat([RATIOS[:1], RATIOS[1:-1].repeat_interleave(2), RATIOS[-1:]])
    called = [level for pair in pairwise(LEVELS) for level in pair][:-1]
    x, trace = START / LEVELS[0].alpha, []
    for index, (level, t) in enumerate(zip(called, scheduler.timesteps, strict=True)):
        x = scheduler.step(eps(level.alpha * x, level), t, x).prev_sample
        if index % 2 == 1 or index == len(called) - 1:
            trace.append(LEVELS[len(trace) + 1].alpha * x)
    assert_same(ours(Heun()), trace, 1e-10)
