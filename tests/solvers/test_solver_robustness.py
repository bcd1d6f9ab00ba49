"""What a run does when something is wrong, when it is watched, when it is stopped, and where values are out of bounds."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import sqrt
from typing import NamedTuple

import numpy as np
import pytest
import torch
from configured import SCHEDULE, make_operator, make_problem, make_solver, options, poison
from gaussian_prior import RecordedNoise, make_setting, with_rng

from diffusion_priors.diffusion.analytic.priors import gaussian
from diffusion_priors.diffusion.analytic.shapes import PowerLaw
from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.grids import Leading, Linspace, LogSNR, Quadratic, Trailing
from diffusion_priors.diffusion.image_random import ImageRandom, image_generator
from diffusion_priors.diffusion.levels import CLEAN
from diffusion_priors.diffusion.schedules import VE, Flow
from diffusion_priors.diffusion.transitions import DDIM
from diffusion_priors.operators.identity import Identity
from diffusion_priors.operators.inpainting import InpaintBox
from diffusion_priors.operators.measurement import Measurement
from diffusion_priors.operators.noise_models import Gaussian
from diffusion_priors.solvers.annealing import Likelihood, Power
from diffusion_priors.solvers.base import Problem, Solver, Step, Walk, steps_of
from diffusion_priors.solvers.dps import DPS
from diffusion_priors.solvers.dps_score import DPSScore
from diffusion_priors.solvers.score_ald_langevin import ScoreALDLangevin
from diffusion_priors.solvers.sdedit import SDEdit
from diffusion_priors.solvers.tweedie import Tweedie
from diffusion_priors.solvers.unconditional import Unconditional

SOLVERS = options("solver")
GRIDS = [Linspace, Trailing, Leading, Quadratic]


def start(name: str, operator, ids=(0, 1, 2, 3), steps=5):
    solver = make_solver(name)
    return solver, make_problem(operator, list(ids)), solver.plan(Linspace(steps), SCHEDULE)


def levels_of(plan):
    return [step.now for step in plan] + [plan[-1].then]


def fresh(problem, ids):
    """The same problem with its random numbers from the beginning."""
    return with_rng(problem, make_problem(Identity(), list(ids)).rng)


# An image that is no longer finite.


@pytest.mark.parametrize("when", ["first", "second", "last"])
@pytest.mark.parametrize("name", SOLVERS)
def test_a_diverging_image_is_frozen_and_leaves_the_others_alone(name, when, tmp_path):
    """Image 2 is NaN from step k on: it keeps its state before step k, and the others are what they are without it, bit by bit."""
    solver, problem, plan = start(name, make_operator("inpaint_random", tmp_path))
    calls = [0]  # before each step
    clean = solver.solve(problem, plan, observe=lambda _: calls.append(problem.denoiser.forwards), remember=True)
    k = {"first": 0, "second": min(1, len(plan) - 1), "last": len(plan) - 1}[when]
    poison(problem, [2], calls[k])
    solution = solver.solve(fresh(problem, range(4)), plan, remember=True)
    assert solution.failed_at == [None, None, k, None]
    assert torch.equal(solution.x0[2], clean.trajectory[k][2])
    assert all(torch.equal(state[2], clean.trajectory[k][2]) for state in solution.trajectory[k:])
    for b in (0, 1, 3):
        assert torch.equal(solution.x0[b], clean.x0[b])
    assert solution.forwards == clean.forwards


def test_an_image_that_failed_once_stays_failed():
    """One bad call, sound ones after it: going on from the frozen state would skip a level, so it is not done."""
    solver, problem, plan = start("dps", Identity())
    clean = solver.solve(problem, plan, remember=True)
    poison(problem, [1], first=2, calls=1)
    solution = solver.solve(fresh(problem, range(4)), plan)
    assert solution.failed_at == [None, 2, None, None]
    assert torch.equal(solution.x0[1], clean.trajectory[2][1])


@pytest.mark.parametrize("name", ["unconditional", "dps", "score_ald"])
def test_a_run_without_a_finite_image_left_ends_early(name):
    solver, problem, plan = start(name, Identity(), steps=100)
    poison(problem, [0, 1, 2, 3], 3)
    solution = solver.solve(problem, plan)
    assert solution.failed_at == [3, 3, 3, 3]
    assert solution.x0.isfinite().all()
    assert solution.forwards == problem.denoiser.network.calls == solver.check_every < 100


def test_a_step_size_that_overflows_is_caught_although_the_network_is_sound():
    """ζ near the largest float: the states blow up by the guidance; every image fails and none is returned infinite."""
    problem = make_problem(Identity(), [0, 1])
    solution = DPS(1e308, limit=False).solve(problem, steps_of(Linspace(5)(SCHEDULE)))
    assert None not in solution.failed_at
    assert solution.x0.isfinite().all()


def with_y(problem, y):
    return replace(problem, measurement=replace(problem.measurement, y=y))


# Where the residual is zero.


@pytest.mark.parametrize("solver", [DPS(1.0), DPSScore(50.0)], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("case", ["identity", "box", "blur", "super-resolution"])
def test_where_the_fit_is_exact_guidance_is_zero_and_not_nan(solver, case):
    """∇‖r‖ at r = 0 is taken to be 0, so the step is the unconditional one."""
    setting = make_setting(case, sampler=DDIM())
    x = setting.tensor(np.random.default_rng(0).normal(size=(3, setting.law.side)))
    step = Step(setting.table[500], setting.table[400])
    denoised = setting.problem.denoiser(x, step.now).x0
    problem = with_y(setting.problem, setting.problem.measurement.operator(denoised))
    assert not problem.measurement.residual(denoised).any()
    moved, *_ = solver.step(Walk(x), step, problem)
    assert torch.equal(moved.x, Unconditional().step(Walk(x), step, problem)[0].x)


def test_an_exact_fit_of_one_image_does_not_touch_the_guidance_of_another():
    setting = make_setting("box", sampler=DDIM())
    x = setting.tensor(np.random.default_rng(0).normal(size=(3, setting.law.side)))
    step, measurement = Step(setting.table[500], setting.table[400]), setting.problem.measurement
    y = measurement.y.clone()
    y[1] = measurement.operator(setting.problem.denoiser(x, step.now).x0)[1]
    problem = with_y(setting.problem, y)
    moved, plain = (DPS(1.0).step(Walk(x), step, p)[0].x for p in (problem, setting.problem))
    assert torch.equal(moved[[0, 2]], plain[[0, 2]])
    assert torch.equal(moved[1], Unconditional().step(Walk(x), step, problem)[0].x[1])


# Where the caller stands, and what is left behind.


CALLERS = [(name, "deblur_gaussian") for name in SOLVERS]
CALLERS += [("dps", operator) for operator in ("inpaint_random", "deblur_motion", "super_resolution_bicubic")]


@pytest.mark.parametrize(("name", "operator"), CALLERS)
def test_the_callers_gradient_mode_changes_nothing(name, operator, tmp_path):
    solver, problem, plan = start(name, make_operator(operator, tmp_path), ids=(0, 1), steps=3)
    plain = solver.solve(problem, plan)
    for context in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        again = fresh(problem, (0, 1))
        with context():
            solution = solver.solve(again, plan)
        assert torch.equal(solution.x0, plain.x0), context.__name__
        assert solution.vjps == plain.vjps


@pytest.mark.parametrize("name", SOLVERS)
def test_no_graph_is_kept_and_nothing_of_the_network_is_trained(name):
    solver, problem, plan = start(name, Identity())
    seen = []
    solution = solver.solve(problem, plan, observe=seen.append, remember=True)
    for tensor in (solution.x0, *solution.trajectory, *(p.x for p in seen), *(p.x0 for p in seen)):
        assert not tensor.requires_grad
        assert tensor.grad_fn is None
        assert not tensor.is_inference()  # usable for autograd afterwards
    assert all(parameter.grad is None for parameter in problem.denoiser.parameters())


@pytest.mark.parametrize("name", SOLVERS)
def test_measurement_and_operator_are_not_written_to(name, tmp_path):
    solver, problem, plan = start(name, make_operator("inpaint_random", tmp_path))
    measurement = problem.measurement
    tensors = (measurement.y, measurement.sigma_y, measurement.operator.mask, problem.like)
    before = [tensor.clone() for tensor in tensors]
    solver.solve(problem, plan)
    assert all(map(torch.equal, before, tensors))


# Watching, remembering and stopping.


@pytest.mark.parametrize("name", SOLVERS)
def test_an_observer_sees_every_step(name):
    solver, problem, plan = start(name, Identity())
    seen = []
    solution = solver.solve(problem, plan, observe=seen.append, remember=True)
    total = len(plan)
    assert len(solution.trajectory) == len(plan) + 1
    assert [progress.index for progress in seen] == list(range(total))
    assert {progress.total for progress in seen} == {total}
    assert [progress.level for progress in seen] == [step.then for step in plan]
    assert all(torch.equal(progress.x, state) for progress, state in zip(seen, solution.trajectory[1:], strict=True))
    assert torch.equal(solution.x0, solution.trajectory[-1])
    assert solution.plan == plan


@pytest.mark.parametrize("name", SOLVERS)
def test_watching_and_remembering_change_nothing(name):
    solver, problem, plan = start(name, Identity())
    plain = solver.solve(problem, plan)
    watched = solver.solve(fresh(problem, range(4)), plan, observe=lambda progress: None, remember=True)
    assert torch.equal(plain.x0, watched.x0)
    assert plain.trajectory == []


@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "tweedie"])
def test_an_observer_ends_the_run_with_the_denoised_image_at_hand(name):
    solver, problem, plan = start(name, Identity())
    seen = []

    def stop_at_third(progress):
        seen.append((progress, problem.denoiser.forwards))
        return progress.index == 2

    solution = solver.solve(problem, plan, observe=stop_at_third, remember=True)
    assert len(seen) == 3 and seen[0][1] < seen[1][1] < seen[2][1] == solution.forwards / solver.particles
    assert len(solution.trajectory) == 4
    assert torch.equal(solution.x0, seen[-1][0].x0)
    assert solution.failed_at == [None] * 4


def test_an_early_stop_leaves_a_failed_image_at_its_last_finite_state():
    solver, problem, plan = start("dps", Identity())
    poison(problem, [1], 1)
    solution = solver.solve(problem, plan, observe=lambda progress: progress.index == 2, remember=True)
    assert solution.failed_at == [None, 1, None, None]
    assert torch.equal(solution.x0[1], solution.trajectory[1][1])


@pytest.mark.parametrize("case", ["identity", "box", "random mask", "blur", "super-resolution"])
def test_the_rms_residual_is_over_measured_entries(case):
    """√(‖y − A x0‖²/n), n the entries of y that some pixel reaches: σ_y for the truth, and the noise alone."""
    setting = make_setting(case)
    x = np.random.default_rng(0).normal(size=(3, setting.law.side))
    rows = [y - a @ row for a, y, row in zip(setting.matrices, setting.y, x, strict=True)]
    measured = [a.any(axis=1) for a in setting.matrices]
    wanted = [sqrt(np.mean(row[known] ** 2)) for row, known in zip(rows, measured, strict=True)]
    np.testing.assert_allclose(setting.problem.measurement.rms_residual(setting.tensor(x)), wanted, rtol=1e-10)


def test_the_rms_residual_of_the_ground_truth_is_sigma_y(tmp_path):
    """On 16 x 16 x 3 with 0.3 of the pixels known: 230 entries, so within 5 standard errors σ_y/√(2 · 230)."""
    operator = make_operator("inpaint_random", tmp_path)
    problem = make_problem(operator, [0])
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(problem.like.shape, dtype=torch.float64, generator=generator) * 2 - 1
    noise = 0.05 * torch.randn(problem.like.shape, dtype=torch.float64, generator=generator)
    measured = with_y(problem, operator.mask * (truth + noise)).measurement
    assert abs(measured.rms_residual(truth).item() - 0.05) < 5 * 0.05 / sqrt(2 * 3 * operator.mask.sum().item())


# Where a run starts and what it refuses.


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: g.__name__)
def test_sdedit_starts_at_t_star_exactly_and_walks_the_grid_below_it(grid):
    """Whatever the spacing: index t* − 1 first, then every level of the grid that is less noisy, and the clean end."""
    for t_star, steps in ((1, 7), (2, 1000), (333, 1), (500, 250), (1000, 7)):
        levels = levels_of(SDEdit(t_star).plan(grid(steps), SCHEDULE))
        assert levels[0] == SCHEDULE.table[t_star - 1]
        assert levels[-1] == CLEAN
        assert all(now.sigma > then.sigma for now, then in pairwise(levels))
        below = [level for level in grid(steps)(SCHEDULE)[:-1] if level.t < t_star - 1]
        assert levels[1:-1] == below


def test_sdedit_orders_levels_by_their_noise_whatever_t_counts():
    """The t of a flow runs from 0 to 1 and of VE in units of σ: what is less noisy than t* is walked in both."""
    for schedule, t_star in ((Flow(), 0.5), (VE(), 3.0)):
        levels = levels_of(SDEdit(t_star).plan(Linspace(50), schedule))
        assert levels[0] == schedule.level(t_star)
        assert len(levels) > 2
        assert all(now.noise_to_signal > then.noise_to_signal for now, then in pairwise(levels))


def test_t_star_at_the_end_of_the_schedule_is_the_whole_walk():
    plan = SDEdit(1000).plan(Linspace(50), SCHEDULE)
    assert plan == Unconditional().plan(Linspace(50), SCHEDULE)
    assert plan[0].now == SCHEDULE.table[-1]


@pytest.mark.parametrize("t", [1, 500, 1000])
def test_tweedie_takes_the_level_after_t_noising_steps_on_any_grid(t):
    """ᾱ_t is a product of t factors: after t = 1 step it is 1 − β_1."""
    levels = levels_of(Tweedie(t).plan(Trailing(3), SCHEDULE))
    assert levels == [SCHEDULE.table[t - 1], CLEAN]
    np.testing.assert_allclose(levels[0].alpha ** 2, np.prod(1 - np.linspace(1e-4, 2e-2, 1000)[:t]), rtol=1e-12)


@pytest.mark.parametrize("t", [-1, 0, 1001])
@pytest.mark.parametrize(("make", "key"), [(SDEdit, "solver.t_star"), (Tweedie, "solver.t")], ids=["sdedit", "tweedie"])
def test_a_start_outside_the_schedule_is_refused_with_the_value_and_the_range(make, key, t):
    with pytest.raises(ValueError, match=rf"{key}={t} .*between 1 and 1000"):
        make(t).plan(Linspace(10), SCHEDULE)


def test_sdedit_starts_from_the_pseudo_inverse_of_a_small_measurement():
    """Block means: A⁺y repeats each pixel over its block; the noise is as large as x0, not as y."""
    setting = make_setting("super-resolution")
    level, side = setting.table[300], setting.law.side
    problem = with_rng(setting.problem, RecordedNoise(np.zeros((1, 3, side))))
    blocks = setting.problem.measurement.y.repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(SDEdit().init(problem, level).x, level.alpha * blocks, rtol=0.0, atol=1e-12)


REFUSED = [
    (lambda: DPS(-0.1), "-0.1", "solver.zeta"),
    (lambda: DPS(float("nan")), "nan", "solver.zeta"),
    (lambda: DPSScore(-3.0), "-3.0", "solver.zeta"),
    (lambda: DPSScore(float("nan")), "nan", "solver.zeta"),
    (lambda: ScoreALDLangevin(Likelihood(), step_size=0.0), "0.0", "solver.step_size"),
    (lambda: ScoreALDLangevin(Likelihood(), step_size=2.0), "2.0", "solver.step_size"),
    (lambda: ScoreALDLangevin(Likelihood(), step_size=-1.0), "-1.0", "solver.step_size"),
    (lambda: ScoreALDLangevin(Likelihood(), step_size=float("nan")), "nan", "solver.step_size"),
    (lambda: ScoreALDLangevin(Likelihood(), inner=0), "0", "solver.inner"),
    (lambda: Likelihood(scale=-1.0), "-1.0", "solver.annealing"),
    (lambda: Likelihood(scale=float("nan")), "nan", "solver.annealing"),
    (lambda: Likelihood(gamma=0.0), "0.0", "solver.annealing"),
    (lambda: Likelihood(gamma=-2.0), "-2.0", "solver.annealing"),
    (lambda: Likelihood(gamma=float("nan")), "nan", "solver.annealing"),
    (lambda: Power(scale=-0.5), "-0.5", "solver.annealing.scale"),
    (lambda: Power(scale=float("nan")), "nan", "solver.annealing.scale"),
]


@pytest.mark.parametrize(("make", "value", "key"), REFUSED, ids=[f"{key}={value}-{i}" for i, (_, value, key) in enumerate(REFUSED)])
def test_values_out_of_bounds_are_refused_with_the_value_and_the_key(make, value, key):
    with pytest.raises(ValueError, match=rf"{value}.*{key}"):
        make()


@pytest.mark.parametrize("make", [lambda: DPS(0.0), lambda: DPSScore(0.0), lambda: Likelihood(scale=0.0), lambda: Power(0.0)])
def test_zero_guidance_is_allowed(make):
    make()


def test_a_solver_is_its_step():
    """The base class owns the loop: a new method needs `step` alone, and without one it says so."""

    class Halving(Solver):
        def step(self, state, step, problem):
            return state / 2, state, {}

    problem = make_problem(Identity(), [0])
    plan = steps_of(Linspace(4)(SCHEDULE))
    z = fresh(problem, [0]).rng.normal(problem.like)
    assert torch.equal(Halving().solve(problem, plan).x0, plan[0].now.sigma * z / 16)
    with pytest.raises(NotImplementedError):
        Solver().solve(fresh(problem, [0]), plan)


def test_a_state_of_several_tensors_is_frozen_row_by_row_and_its_numbers_are_averaged():
    """Image 1 fails in its second tensor at step 2; both its tensors keep the rows of the step before."""

    class Counters(NamedTuple):
        x: torch.Tensor
        count: torch.Tensor

    class Counting(Solver):
        def init(self, problem, start):
            return Counters(problem.like.clone(), torch.zeros(len(problem.like), 2))

        def step(self, state, step, problem):
            count = state.count + 1
            count[1] = torch.where(count[1] == 3, torch.nan, count[1])
            return Counters(state.x + 1, count), state.x, {"count": count[:, 0].nan_to_num(0.0)}

        def image(self, state):
            return state.x

    solution = Counting().solve(make_problem(Identity(), [0, 1]), steps_of(Linspace(4)(SCHEDULE)))
    assert solution.failed_at == [None, 2]
    assert solution.x0[:, 0, 0, 0].tolist() == [4.0, 2.0]
    assert solution.info["count"][0] == (1 + 2 + 3 + 4) / 4
    assert solution.start is None


def test_a_solution_holds_the_image_it_started_from():
    solver, problem, plan = start("sdedit", Identity())
    begun = solver.init(fresh(problem, range(4)), plan[0].now).x
    assert torch.equal(solver.solve(problem, plan).start, begun)
    assert start("dps", Identity())[0].solve(fresh(problem, range(4)), plan).start is None


@pytest.mark.parametrize("name", SOLVERS)
def test_a_schedule_that_starts_without_signal_is_walked_or_refused(name):
    """At the first level of a flow α = 0. Methods that divide by α say so before anything is computed; the others stay finite."""
    solver, schedule, grid = make_solver(name), Flow(), Linspace(5)
    if solver.needs_signal:
        with pytest.raises(ValueError, match=r"needs some signal .*grid=log_snr grid\.largest=1000$"):
            solver.plan(grid, schedule)
        grid = LogSNR(5, largest=1000.0)
    t = 0.5 if solver.starts_from_image else None
    for key in ("t_star", "t"):
        if t is not None and hasattr(solver, key):
            setattr(solver, key, t)
    problem = exact_problem(schedule)
    solution = solver.solve(problem, solver.plan(grid, schedule))
    assert solution.failed_at == [None, None]
    assert solution.x0.isfinite().all()


def exact_problem(schedule):
    """Two images of a Gaussian prior under this schedule, one box of each missing."""
    prior = gaussian(schedule, PowerLaw(), size=(8, 8))
    generators = [image_generator(0, b, "measurement") for b in range(2)]
    like = torch.zeros(2, 3, 8, 8)
    measurement = Measurement.of(InpaintBox().draw(like, generators), Gaussian(0.05), like, generators)
    rng = ImageRandom([image_generator(0, b, "sampling") for b in range(2)])
    return Problem(Denoiser(prior), measurement, DDIM(), rng, like)
