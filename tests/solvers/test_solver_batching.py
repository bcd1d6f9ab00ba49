"""Every configured solver: an image's result does not depend on its batch, and the evaluations are counted right."""

from __future__ import annotations

import pytest
import torch
from configured import SCHEDULE, make_operator, make_problem, make_solver, options

from diffusion_priors.diffusion.grids import Linspace
from diffusion_priors.operators.identity import Identity
from diffusion_priors.solvers.base import Solver


def run(solver: Solver, operator, ids, steps=6, **settings):
    problem = make_problem(operator, ids, **settings)
    return problem, solver.solve(problem, solver.plan(Linspace(steps), SCHEDULE))


def pairs() -> list[tuple[str, str]]:
    """Every solver with two operators and every operator with two solvers: a solver meets an operator only through its methods."""
    with_solver = [(solver, operator) for solver in options("solver") for operator in ("inpaint_random", "deblur_gaussian")]
    with_operator = [(solver, operator) for operator in options("operator") for solver in ("dps", "score_ald")]
    return list(dict.fromkeys(with_solver + with_operator))


@pytest.mark.parametrize(("name", "operator"), pairs())
def test_an_image_alone_in_a_batch_and_in_another_order_is_restored_the_same(name, operator, tmp_path):
    """To float64 rounding, 1e-9 of the image's largest value."""
    solver = make_solver(name)

    def restore(ids):
        problem, solution = run(solver, make_operator(operator, tmp_path), ids)
        assert solution.failed_at == [None] * len(ids)
        return dict(zip(ids, zip(solution.x0, problem.measurement.rms_residual(solution.x0), strict=True), strict=True))

    batch = restore(list(range(8)))
    assert all((batch[0][0] - batch[b][0]).abs().max() > 0.01 for b in range(1, 8))  # they are eight different images
    for others in (restore(list(reversed(range(8)))), restore([2]), restore([7])):
        for number, (x0, residual) in others.items():
            scale = max(1.0, batch[number][0].abs().max().item())
            torch.testing.assert_close(x0, batch[number][0], rtol=0.0, atol=1e-9 * scale)
            torch.testing.assert_close(residual, batch[number][1], rtol=0.0, atol=1e-9 * scale)


@pytest.mark.parametrize("name", options("solver"))
def test_a_run_repeats_bit_by_bit_and_another_seed_differs(name, tmp_path):
    solver = make_solver(name)
    first, again = (run(solver, make_operator("inpaint_random", tmp_path), [0, 1])[1].x0 for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, run(solver, make_operator("inpaint_random", tmp_path), [2, 3])[1].x0)


@pytest.mark.parametrize("name", options("solver"))
def test_evaluations_on_record_are_those_the_network_saw(name, tmp_path):
    """Forward passes and vector-Jacobian products per image, as rows that the network itself counts; each run counts from zero."""
    solver = make_solver(name)
    problem, solution = run(solver, make_operator("inpaint_box", tmp_path), [0, 1, 2])
    network = problem.denoiser.network
    assert (solution.forwards, solution.vjps) == (network.rows / 3, network.vjp_rows / 3)
    again = solver.solve(problem, solution.plan)
    assert (again.forwards, again.vjps) == (solution.forwards, solution.vjps)


EVALUATIONS = {
    **dict.fromkeys(["ddnm", "ddnm_plus", "ddrm", "dds", "diffpir", "red_diff", "score_ald", "score_ald_scaled", "unconditional"], (6, 0)),
    **dict.fromkeys(["adam_dps", "dps", "dps_score", "mcg", "pigdm"], (6, 6)),
    **dict.fromkeys(["mmps", "tmpd"], (6, 12)),  # one product for the covariance, one for the score
    "daps": (26, 0),  # five steps of the flow, but one from the level next to the noise-free end
    "repaint": (18, 0),  # one block, walked three times
    "score_ald_langevin": (7, 0),  # denoises once more at the end
    "sdedit": (4, 0),  # index 499, and what lies below it of the grid 999, 799, 599, 400, 200, 0
    "tds": (48, 40),  # eight particles; the last step is not guided
    "mcg_diff": (48, 0),
    "tweedie": (1, 0),
}
"""Forwards and vector-Jacobian products of six levels."""


@pytest.mark.parametrize("name", EVALUATIONS)
def test_the_network_is_evaluated_as_often_as_the_algorithm_says(name):
    _, solution = run(make_solver(name), Identity(), [0, 1])
    assert (solution.forwards, solution.vjps) == EVALUATIONS[name]


@pytest.mark.parametrize("inner", [1, 2, 5])
def test_langevin_evaluates_inner_times_a_level_and_once_at_the_end(inner):
    solver = make_solver("score_ald_langevin")
    solver.inner = inner
    _, solution = run(solver, Identity(), [0])
    assert (solution.forwards, solution.vjps) == (6 * inner + 1, 0)
