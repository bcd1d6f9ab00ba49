"""DDRM, DiffPIR, ΠGDM, MMPS and DPS of DeepInverse 0.5.0 and ours: the same exact denoiser, y and draws.

Where the two differ, ours with DeepInverse's deviation put in gives what it gives: the deviation is the whole difference. The
functions tested are those of benchmarks/peers_quality.py.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from math import sqrt

import numpy as np
import pytest
import torch
from gaussian_prior import CASES, RecordedNoise, gaussian_prior, make_setting, with_rng
from lazy import Lazy

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.grids import IndexGrid, Linspace
from diffusion_priors.diffusion.image_random import image_generator
from diffusion_priors.diffusion.transitions import DDIM, Renoise
from diffusion_priors.operators.blur import DeblurGaussian, DeblurKernel
from diffusion_priors.operators.inpainting import InpaintBox
from diffusion_priors.solvers.base import Problem
from diffusion_priors.solvers.ddrm import DDRM
from diffusion_priors.solvers.diffpir import DiffPIR
from diffusion_priors.solvers.dps_score import DPSScore
from diffusion_priors.solvers.mmps import MMPS
from diffusion_priors.solvers.pigdm import PiGDM

deepinv, deepinverse = Lazy("deepinv"), Lazy("benchmarks.deepinverse")
pytestmark = [
    pytest.mark.script,  # importing DeepInverse starts uname
    pytest.mark.skipif(find_spec("deepinv") is None, reason="DeepInverse is not installed: pip install -e '.[peers]'"),
]

STEPS, SIGMA_Y = 8, 0.2
SAME_IMAGE = ["box", "blur", "super-resolution"]
"""Cases whose A is the same for every image."""


@cache
def setting_of(case: str, single: bool = False, clip: bool = False):
    """Three images on a Gaussian prior, each with its own y; in single precision where DeepInverse computes in it."""
    setting = make_setting(case, sigma_y=(SIGMA_Y,))
    if not single:
        return setting
    problem, measurement, like = setting.problem, setting.problem.measurement, setting.problem.like.float()
    operator = CASES[case].operator().draw(like, [image_generator(0, b, "measurement") for b in range(len(like))])
    measurement = replace(measurement, operator=operator, y=measurement.y.float(), sigma_y=measurement.sigma_y.float())
    prior = gaussian_prior(setting.law, CASES[case].shape)
    prior.clip = clip
    return replace(setting, problem=replace(problem, denoiser=Denoiser(prior).float(), measurement=measurement, like=like))


def draws_of(problem: Problem, count: int = STEPS + 1) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(count, len(problem.like), problem.like[0].numel()))


def peer_of(problem: Problem, schedule):
    return deepinverse.Peer.of(problem.denoiser, schedule, problem.measurement, seed=1)


def run(solver, problem: Problem, schedule, draws, sampler=None, grid=None):
    """Our solution, and the x̂0 of the last step."""
    problem = with_rng(replace(problem, sampler=sampler or problem.sampler), RecordedNoise(draws))
    seen = []
    solution = solver.solve(
        problem, solver.plan(grid or Linspace(STEPS), schedule), lambda progress: seen.append(progress.x0), remember=True
    )
    return solution, seen[-1]


def assert_same(found, wanted, tolerance):
    np.testing.assert_allclose(found.double().numpy(), wanted.double().numpy(), rtol=tolerance, atol=tolerance)


def differs(found, wanted) -> float:
    return float((found - wanted).abs().max())


# The adapters


@pytest.mark.parametrize("case", CASES)
def test_the_wrapped_denoiser_the_physics_and_y_are_ours_in_the_other_unit(case):
    setting = setting_of(case)
    peer = peer_of(setting.problem, setting.schedule)
    operator = setting.problem.measurement.operator
    x, v = (torch.from_numpy(draw).view(setting.problem.like.shape) for draw in draws_of(setting.problem, 2))
    for level in (setting.table[900], setting.table[30]):
        ours = setting.problem.denoiser(level.alpha * x, level).x0
        assert_same(2.0 * peer.denoiser((x + 1.0) / 2.0, torch.tensor(level.noise_to_signal / 2.0)) - 1.0, ours, 1e-12)
    assert_same(2.0 * peer.physics.A((x + 1.0) / 2.0) - operator(torch.ones_like(x)), operator(x), 1e-6)
    back = operator(v)
    assert_same(peer.physics.A_adjoint(back), operator.adjoint(back), 1e-6)
    assert_same(peer.physics.U(peer.physics.U_adjoint(back)), back, 1e-6)
    assert_same(2.0 * peer.y - operator(torch.ones_like(x)), setting.problem.measurement.y, 1e-12)
    assert float(peer.physics.noise_model.sigma) == pytest.approx(SIGMA_Y / 2.0)


def test_a_circular_blur_of_deepinverse_is_ours(tmp_path):
    np.save(tmp_path / "kernel.npy", np.random.default_rng(0).uniform(size=(3, 5)))
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 3, 8, 8)))
    for operator in (DeblurGaussian(5, 1.0, "circular"), DeblurKernel(str(tmp_path / "kernel.npy"), "circular")):
        operator.draw(x, [np.random.default_rng(0)] * 2)
        setting = setting_of("identity").problem.measurement
        physics = deepinverse.physics_of(replace(setting, operator=operator, y=operator(x)))
        assert isinstance(physics, deepinv.physics.BlurFFT)
        assert_same(physics.A(x), operator(x), 1e-6)


def test_the_times_given_to_deepinverse_have_the_noise_of_our_levels():
    process = deepinv.sampling.VariancePreservingDiffusion()
    for level in setting_of("box").table[::111]:
        assert float(process.sigma_t(deepinverse.time_of(level))) == pytest.approx(level.noise_to_signal, rel=1e-9)


# DDRM


class StartsFromBlack(DDRM):
    """The start where nothing is measured is N(−1, u²): zero on the scale from 0 to 1."""

    def init(self, problem, start):
        spectrum, s = problem.measurement.linear_operator.spectrum(), self.singular_values(problem.measurement)
        black = spectrum.analyse(torch.full_like(problem.like, -1.0))
        return super().init(problem, start) + start.alpha * spectrum.synthesise(torch.where(s > 0.0, 0.0, black))


def their_ddrm(setting, draws, monkeypatch):
    """(x at every level as the denoiser sees it, x̂0 at the last level) of DeepInverse's DDRM on our levels."""
    problem = setting.problem
    peer = peer_of(problem, setting.schedule)
    noise, spectrum = RecordedNoise(draws), problem.measurement.operator.spectrum()
    monkeypatch.setattr(torch, "randn_like", lambda like: spectrum.analyse(noise.normal(problem.like)))
    seen = []
    peer.denoiser.register_forward_pre_hook(lambda module, inputs: seen.append(2.0 * inputs[0] - 1.0))
    x0 = deepinverse.ddrm(STEPS, deepinverse.our_sigmas)(peer)
    monkeypatch.undo()
    return seen, 2.0 * x0 - 1.0


@pytest.mark.parametrize("case", SAME_IMAGE)
def test_ddrm_is_ours_with_noise_over_root_2_a_black_start_and_no_small_singular_values(case, monkeypatch):
    """DeepInverse's ε̂, from successive x̄, is the ε̂ of x̂0: no deviation."""
    setting = setting_of(case)
    draws = draws_of(setting.problem)
    theirs, last = their_ddrm(setting, draws, monkeypatch)
    solution, x0 = run(StartsFromBlack(cutoff=0.5), setting.problem, setting.schedule, draws / sqrt(2.0))
    assert len(theirs) == STEPS
    for step, seen, x in zip(solution.plan, theirs, solution.trajectory[:-1], strict=True):
        assert_same(seen, x / step.now.alpha, 1e-4 * max(step.now.noise_to_signal, 1.0))
    assert_same(last, x0, 1e-4)
    _, ours = run(DDRM(), setting.problem, setting.schedule, draws)
    assert differs(last, ours) > 0.05


@pytest.mark.parametrize(("blurred", "wanted"), [(True, 1.0), (False, sqrt(0.5))], ids=["blur", "mask"])
def test_noise_over_root_2_is_right_for_complex_coefficients_alone(blurred, wanted):
    """White noise of variance 1 has complex coefficients with real and imaginary parts of variance 1/2."""
    like = torch.zeros(1, 1, 64, 64)
    operator = DeblurGaussian(5, 1.0, "circular") if blurred else InpaintBox()
    operator.draw(like, [np.random.default_rng(0)])
    measurement = replace(setting_of("identity").problem.measurement, operator=operator, y=like)
    physics = deepinverse.physics_of(measurement)
    z = torch.randn(physics.U_adjoint(like).shape, generator=torch.Generator().manual_seed(0))
    assert float(physics.V(z / sqrt(2.0)).std()) == pytest.approx(wanted, rel=0.04)


@pytest.mark.parametrize("sigma_y", [0.9, 1.1])
def test_ddrm_of_deepinverse_leaves_out_what_ours_uses_below_sigma_y(sigma_y, monkeypatch):
    """The singular values of a 2 x 2 average are 1/2; DeepInverse compares them with its σ_y, half of ours."""
    setting = make_setting("super-resolution", sigma_y=(sigma_y,))
    draws = draws_of(setting.problem)
    other = replace(
        setting, problem=replace(setting.problem, measurement=replace(setting.problem.measurement, y=setting.problem.measurement.y + 0.5))
    )
    theirs = differs(their_ddrm(setting, draws, monkeypatch)[1], their_ddrm(other, draws, monkeypatch)[1])
    ours = differs(*(run(DDRM(), one.problem, one.schedule, draws)[1] for one in (setting, other)))
    assert ours > 0.05
    assert (theirs > 0.05) is (sigma_y < 1.0)


# DiffPIR


class TheirLevels(IndexGrid):
    """t_i = T − 1 − ⌊T √(i/(n − 1))⌋, the levels of the official code of DiffPIR."""

    def indices(self, total):
        return [total - 1 - min(int(total * sqrt(i / (self.steps - 1))), total - 1) for i in range(self.steps)]


class StartsFromAdjoint(DiffPIR):
    """x_T = α_T (2 Aᵀy − 1 + √(u² − σ_y²) z), y on the scale from 0 to 1."""

    def begin(self, problem, start):
        measurement = problem.measurement
        image = 2.0 * measurement.operator.adjoint(deepinverse.measured(measurement)) - 1.0
        noise = sqrt(start.noise_to_signal**2 - SIGMA_Y**2)
        return start.alpha * (image + noise * problem.rng.normal(problem.like))


@pytest.mark.parametrize("case", SAME_IMAGE)
def test_diffpir_is_ours_with_half_of_lambda_another_start_and_the_last_step_left_out(case, monkeypatch):
    setting = setting_of(case, single=True, clip=True)  # as DeepInverse does
    draws = draws_of(setting.problem)
    noise = RecordedNoise(draws)
    monkeypatch.setattr(torch, "randn_like", noise.normal)
    peer = peer_of(setting.problem, setting.schedule)
    theirs = 2.0 * deepinverse.diffpir(lam=7.0, zeta=0.3, steps=STEPS)(peer) - 1.0
    monkeypatch.undo()
    solution, _ = run(StartsFromAdjoint(3.5), setting.problem, setting.schedule, draws, Renoise(0.3), TheirLevels(STEPS))
    assert len(solution.trajectory) == STEPS + 1
    assert_same(theirs, solution.trajectory[-2], 5e-4)
    other, _ = run(StartsFromAdjoint(7.0), setting.problem, setting.schedule, draws, Renoise(0.3), TheirLevels(STEPS))
    assert differs(theirs, other.trajectory[-2]) > 1e-3


# ΠGDM, MMPS, DPS


def their_guided(setting, fidelity, eta, draws, monkeypatch):
    noise = RecordedNoise(draws)
    like = setting.problem.like
    process, solver = deepinv.sampling.VariancePreservingDiffusion, deepinv.sampling.DDIMSolver

    def start(self, shape, rng=None, t=None):
        return noise.normal(like) * self.sigma_t(t) * self.scale_t(t)

    monkeypatch.setattr(process, "sample_init", start)
    monkeypatch.setattr(solver, "randn_like", lambda self, x: noise.normal(x))
    x0 = 2.0 * deepinverse.guided(fidelity, STEPS, eta)(peer_of(setting.problem, setting.schedule)) - 1.0
    monkeypatch.undo()
    return x0


def our_guided(setting, solver, eta, draws):
    return run(solver, setting.problem, setting.schedule, draws, DDIM(eta))[0].x0


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("case", CASES)
def test_pigdm_is_ours_with_a_prior_variance_of_4(case, eta, monkeypatch):
    """r² = σ²/(1 + σ²) on the scale from 0 to 1: a prior of standard deviation 1 there is one of 2 on [-1, 1]."""
    setting = setting_of(case, single=True)
    draws = draws_of(setting.problem)
    theirs = their_guided(setting, deepinv.sampling.PiGDMDataFidelity, eta, draws, monkeypatch)
    assert_same(theirs, our_guided(setting, PiGDM(4.0), eta, draws), 1e-3)
    assert differs(theirs, our_guided(setting, PiGDM(1.0), eta, draws)) > 0.01


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_mmps_is_ours(case, iterations, monkeypatch):
    setting = setting_of(case, single=True)
    draws = draws_of(setting.problem)

    def fidelity():
        return deepinv.sampling.MomentMatchingDataFidelity(cg_max_iter=iterations)

    theirs = their_guided(setting, fidelity, 1.0, draws, monkeypatch)
    assert_same(theirs, our_guided(setting, MMPS(iterations), 1.0, draws), 1e-3)


@pytest.mark.parametrize("case", CASES)
def test_dps_is_our_dps_score_with_a_quarter_of_its_weight(case, monkeypatch):
    """The weight is that of the norm in the score: s − w/2 ∇‖y − A x̂0‖, and the paper's Eq. 6 has 2 ζ there."""
    setting = setting_of(case, single=True)
    draws = draws_of(setting.problem)

    def fidelity():
        return deepinv.sampling.DPSDataFidelity(weight=8.0)

    theirs = their_guided(setting, fidelity, 1.0, draws, monkeypatch)
    assert_same(theirs, our_guided(setting, DPSScore(2.0), 1.0, draws), 1e-3)
