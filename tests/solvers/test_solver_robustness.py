"""What a run does when something is wrong, when it is watched, when it is stopped, and where values are out of bounds."""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

import numpy as np
import pytest
import torch
from configured import SCHEDULE, make_operator, make_problem, make_solver, options, poison
from gaussian_prior import RecordedNoise, make_setting, with_noise

from diffusion_priors.diffusion.grids import Leading, Linspace, Quadratic, Trailing
from diffusion_priors.diffusion.levels import CLEAN
from diffusion_priors.diffusion.transitions import DDIM, FixedSmall
from diffusion_priors.operators.identity import Identity
from diffusion_priors.solvers.annealing import Likelihood, Power
from diffusion_priors.solvers.base import Solver
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
    return solver, make_problem(operator, list(ids)), solver.levels(Linspace(steps), SCHEDULE.levels)


def fresh(problem, ids):
    """The same problem with its random numbers from the beginning."""
    return with_noise(problem, make_problem(Identity(), list(ids)).rng)


# An image that is no longer finite.


@pytest.mark.parametrize("when", ["first", "second", "last"])
@pytest.mark.parametrize("name", SOLVERS)
def test_a_diverging_image_is_frozen_and_leaves_the_others_alone(name, when, tmp_path):
    """Image 2 is NaN from step k on: it keeps its state before step k, and the others are what they are without it, bit by bit."""
    solver, problem, levels = start(name, make_operator("inpaint_random", tmp_path))
    clean = solver.solve(problem, levels, remember=True)
    k = {"first": 0, "second": min(1, len(levels) - 2), "last": len(levels) - 2}[when]
    poison(problem, [2], k)
    solution = solver.solve(fresh(problem, range(4)), levels, remember=True)
    assert solution.failed_at == [None, None, k, None]
    assert torch.equal(solution.x0[2], clean.trajectory[k][2])
    assert all(torch.equal(state[2], clean.trajectory[k][2]) for state in solution.trajectory[k:])
    for b in (0, 1, 3):
        assert torch.equal(solution.x0[b], clean.x0[b])
    assert solution.forwards == clean.forwards


def test_an_image_that_failed_once_stays_failed():
    """One bad call, sound ones after it: going on from the frozen state would skip a level, so it is not done."""
    solver, problem, levels = start("dps", Identity())
    clean = solver.solve(problem, levels, remember=True)
    poison(problem, [1], first=2, calls=1)
    solution = solver.solve(fresh(problem, range(4)), levels)
    assert solution.failed_at == [None, 2, None, None]
    assert torch.equal(solution.x0[1], clean.trajectory[2][1])


@pytest.mark.parametrize("name", ["unconditional", "dps", "score_ald"])
def test_a_run_without_a_finite_image_left_ends_early(name):
    solver, problem, levels = start(name, Identity(), steps=100)
    poison(problem, [0, 1, 2, 3], 3)
    solution = solver.solve(problem, levels)
    assert solution.failed_at == [3, 3, 3, 3]
    assert solution.x0.isfinite().all()
    assert solution.forwards == problem.denoiser.network.calls == solver.check_every < 100


def test_a_step_size_that_overflows_is_caught_although_the_network_is_sound():
    """ζ near the largest float: the states blow up by the guidance; every image fails and none is returned infinite."""
    problem = make_problem(Identity(), [0, 1])
    solution = DPS(1e308).solve(problem, Linspace(5)(SCHEDULE.levels))
    assert None not in solution.failed_at
    assert solution.x0.isfinite().all()


# No residual, no direction.


@pytest.mark.parametrize("solver", [DPS(1.0), DPSScore(50.0)], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("case", ["identity", "box", "blur", "super-resolution"])
def test_where_the_fit_is_exact_guidance_is_zero_and_not_nan(solver, case):
    """∇‖r‖ at r = 0 is taken to be 0, so the step is the unconditional one."""
    setting = make_setting(case, transition=DDIM())
    x = setting.tensor(np.random.default_rng(0).normal(size=(3, setting.law.side)))
    now, then = setting.table[500], setting.table[400]
    y = setting.problem.operator(setting.problem.denoiser(x, now).x0)
    problem = type(setting.problem)(**{**setting.problem.__dict__, "y": y})
    assert not problem.residual(problem.denoiser(x, now).x0).any()
    moved, _ = solver.step(x, now, then, problem)
    assert torch.equal(moved, Unconditional().step(x, now, then, problem)[0])


def test_an_exact_fit_of_one_image_does_not_touch_the_guidance_of_another():
    setting = make_setting("box", transition=DDIM())
    x = setting.tensor(np.random.default_rng(0).normal(size=(3, setting.law.side)))
    now, then = setting.table[500], setting.table[400]
    y = setting.problem.y.clone()
    y[1] = setting.problem.operator(setting.problem.denoiser(x, now).x0)[1]
    problem = type(setting.problem)(**{**setting.problem.__dict__, "y": y})
    moved, plain = (DPS(1.0).step(x, now, then, p)[0] for p in (problem, setting.problem))
    assert torch.equal(moved[[0, 2]], plain[[0, 2]])
    assert torch.equal(moved[1], Unconditional().step(x, now, then, problem)[0][1])


# Where the caller stands, and what is left behind.


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad], ids=lambda c: c.__name__)
@pytest.mark.parametrize("operator", ["inpaint_random", "deblur_motion", "super_resolution_bicubic"])
@pytest.mark.parametrize("name", SOLVERS)
def test_the_callers_gradient_mode_changes_nothing(name, operator, context, tmp_path):
    solver, problem, levels = start(name, make_operator(operator, tmp_path), ids=(0, 1))
    plain = solver.solve(problem, levels)
    again = fresh(problem, (0, 1))
    with context():
        solution = solver.solve(again, levels)
    assert torch.equal(solution.x0, plain.x0)
    assert solution.vjps == plain.vjps


@pytest.mark.parametrize("name", SOLVERS)
def test_no_graph_is_kept_and_nothing_of_the_network_is_trained(name):
    solver, problem, levels = start(name, Identity())
    seen = []
    solution = solver.solve(problem, levels, observe=lambda progress: seen.append(progress), remember=True)
    for tensor in (solution.x0, *solution.trajectory, *(p.x for p in seen), *(p.x0 for p in seen)):
        assert not tensor.requires_grad
        assert tensor.grad_fn is None
        assert not tensor.is_inference()  # usable for autograd afterwards
    assert all(parameter.grad is None for parameter in problem.denoiser.parameters())


@pytest.mark.parametrize("name", SOLVERS)
def test_measurement_and_operator_are_not_written_to(name, tmp_path):
    solver, problem, levels = start(name, make_operator("inpaint_random", tmp_path))
    before = [tensor.clone() for tensor in (problem.y, problem.sigma_y, problem.blank, problem.operator.mask)]
    solver.solve(problem, levels)
    assert all(map(torch.equal, before, (problem.y, problem.sigma_y, problem.blank, problem.operator.mask)))


# Watching, remembering and stopping.


@pytest.mark.parametrize("name", SOLVERS)
def test_an_observer_sees_every_step(name):
    solver, problem, levels = start(name, Identity())
    seen = []
    solution = solver.solve(problem, levels, observe=lambda progress: seen.append(progress), remember=True)
    total = len(levels) - 1
    assert len(solution.trajectory) == len(levels)
    assert [progress.index for progress in seen] == list(range(total))
    assert {progress.total for progress in seen} == {total}
    assert [progress.level for progress in seen] == levels[1:]
    assert all(torch.equal(progress.x, state) for progress, state in zip(seen, solution.trajectory[1:], strict=True))
    assert torch.equal(solution.x0, solution.trajectory[-1])
    assert solution.levels == levels


@pytest.mark.parametrize("name", SOLVERS)
def test_watching_and_remembering_change_nothing(name):
    solver, problem, levels = start(name, Identity())
    plain = solver.solve(problem, levels)
    watched = solver.solve(fresh(problem, range(4)), levels, observe=lambda progress: None, remember=True)
    assert torch.equal(plain.x0, watched.x0)
    assert plain.trajectory == []


@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "tweedie"])
def test_an_observer_ends_the_run_with_the_denoised_image_at_hand(name):
    solver, problem, levels = start(name, Identity())
    seen = []

    def stop_at_third(progress):
        seen.append(progress)
        return progress.index == 2

    solution = solver.solve(problem, levels, observe=stop_at_third, remember=True)
    assert len(seen) == solution.forwards == 3
    assert len(solution.trajectory) == 4
    assert torch.equal(solution.x0, seen[-1].x0)
    assert solution.failed_at == [None] * 4


def test_an_early_stop_leaves_a_failed_image_at_its_last_finite_state():
    solver, problem, levels = start("dps", Identity())
    poison(problem, [1], 1)
    solution = solver.solve(problem, levels, observe=lambda progress: progress.index == 2, remember=True)
    assert solution.failed_at == [None, 1, None, None]
    assert torch.equal(solution.x0[1], solution.trajectory[1][1])


@pytest.mark.parametrize("case", ["identity", "box", "random mask", "blur", "super-resolution"])
def test_misfit_is_the_root_mean_square_over_measured_entries(case):
    """√(‖y − A x0‖²/n), n the entries of y that some pixel reaches: σ_y for the truth, and the noise alone."""
    setting = make_setting(case)
    x = np.random.default_rng(0).normal(size=(3, setting.law.side))
    rows = [y - a @ row for a, y, row in zip(setting.matrices, setting.y, x, strict=True)]
    measured = [a.any(axis=1) for a in setting.matrices]
    wanted = [sqrt(np.mean(row[known] ** 2)) for row, known in zip(rows, measured, strict=True)]
    np.testing.assert_allclose(setting.problem.misfit(setting.tensor(x)), wanted, rtol=1e-10)


def test_misfit_of_the_truth_is_sigma_y(tmp_path):
    """On 16 x 16 x 3 with 0.3 of the pixels known: 230 entries, so within 5 standard errors σ_y/√(2 · 230)."""
    operator = make_operator("inpaint_random", tmp_path)
    problem = make_problem(operator, [0])
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(problem.blank.shape, dtype=torch.float64, generator=generator) * 2 - 1
    noise = 0.05 * torch.randn(problem.blank.shape, dtype=torch.float64, generator=generator)
    measured = type(problem)(**{**problem.__dict__, "y": operator.mask * (truth + noise)})
    assert abs(measured.misfit(truth).item() - 0.05) < 5 * 0.05 / sqrt(2 * 3 * operator.mask.sum().item())


# Where a run starts and what it refuses.


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: g.__name__)
@pytest.mark.parametrize("steps", [1, 7, 250, 1000])
@pytest.mark.parametrize("t_star", [1, 2, 333, 500, 1000])
def test_sdedit_starts_at_t_star_exactly_and_walks_the_grid_below_it(t_star, steps, grid):
    """Whatever the spacing: index t* − 1 first, then every level of the grid that is less noisy, and the clean end."""
    levels = SDEdit(t_star).levels(grid(steps), SCHEDULE.levels)
    assert levels[0] == SCHEDULE.levels[t_star - 1]
    assert levels[-1] == CLEAN
    assert all(now.sigma > then.sigma for now, then in pairwise(levels))
    below = [level for level in grid(steps)(SCHEDULE.levels)[:-1] if level.t < t_star - 1]
    assert levels[1:-1] == below


def test_t_star_at_the_end_of_the_schedule_is_the_whole_walk():
    levels = SDEdit(1000).levels(Linspace(50), SCHEDULE.levels)
    assert levels == Unconditional().levels(Linspace(50), SCHEDULE.levels)
    assert levels[0] == SCHEDULE.levels[-1]


@pytest.mark.parametrize("t", [1, 500, 1000])
def test_tweedie_takes_the_level_after_t_noising_steps_on_any_grid(t):
    """ᾱ_t is a product of t factors: after t = 1 step it is 1 − β_1."""
    levels = Tweedie(t).levels(Trailing(3), SCHEDULE.levels)
    assert levels == [SCHEDULE.levels[t - 1], CLEAN]
    np.testing.assert_allclose(levels[0].alpha ** 2, np.prod(1 - np.linspace(1e-4, 2e-2, 1000)[:t]), rtol=1e-12)


@pytest.mark.parametrize("t", [-1, 0, 1001])
@pytest.mark.parametrize(("make", "key"), [(SDEdit, "solver.t_star"), (Tweedie, "solver.t")], ids=["sdedit", "tweedie"])
def test_a_start_outside_the_schedule_is_refused_with_the_value_and_the_range(make, key, t):
    with pytest.raises(ValueError, match=rf"{key}={t} .*between 1 and 1000"):
        make(t).levels(Linspace(10), SCHEDULE.levels)


def test_sdedit_starts_from_the_pseudo_inverse_of_a_small_measurement():
    """Block means: A⁺y repeats each pixel over its block; the noise is as large as x0, not as y."""
    setting = make_setting("super-resolution")
    level, side = setting.table[300], setting.law.side
    problem = with_noise(setting.problem, RecordedNoise(np.zeros((1, 3, side))))
    blocks = setting.problem.y.repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(SDEdit().init(problem, level), level.alpha * blocks, rtol=0.0, atol=1e-12)


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
        def step(self, x, now, then, problem):
            return x / 2, x

    problem = make_problem(Identity(), [0], transition=FixedSmall())
    levels = Linspace(4)(SCHEDULE.levels)
    z = fresh(problem, [0]).rng.normal(problem.blank)
    assert torch.equal(Halving().solve(problem, levels).x0, levels[0].sigma * z / 16)
    with pytest.raises(NotImplementedError):
        Solver().solve(fresh(problem, [0]), levels)
