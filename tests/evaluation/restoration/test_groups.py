"""Batches in groups of a fixed size: the same bits in any batch, and what a group is filled with leaves no trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from configured import make_operator, make_solver, options
from lazy import Lazy
from tiny_prior import images, tiny_prior

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.grids import Linspace
from diffusion_priors.diffusion.schedules import Linear
from diffusion_priors.diffusion.transitions import FixedSmall
from diffusion_priors.evaluation.metrics.per_image import Metrics
from diffusion_priors.evaluation.restoration.batches import Batch
from diffusion_priors.evaluation.restoration.groups import groups_of
from diffusion_priors.operators.noise_models import Gaussian

if TYPE_CHECKING:
    from diffusion_priors.evaluation.restoration.module import RestorationModule

restoration = Lazy("diffusion_priors.evaluation.restoration.module")

NAMES = ("a", "b", "c", "d", "e")
TRUTHS = images(len(NAMES))
ITERATIONS = 4
"""Of solvers that have their own number, whatever the grid: `pnp_dm` and `sitcom`."""


def module_of(name: str, operator: str, folder, images_per_call: int | None, steps: int, **how) -> RestorationModule:
    prior, solver = tiny_prior(schedule=Linear()), make_solver(name)
    if hasattr(solver, "iterations"):
        solver.iterations = min(solver.iterations, ITERATIONS)
    plan = solver.plan(Linspace(steps), prior.image_schedule)
    parts = (Denoiser(prior), solver, make_operator(operator, folder), Gaussian(0.05), FixedSmall(), plan, Metrics(), (3, 16, 16))
    return restoration.RestorationModule(*parts, images_per_call=images_per_call, **how)


def restored(name: str, operator: str, folder, batch_size: int, images_per_call: int | None, steps: int = 30) -> tuple[dict, list]:
    """(x̂0 by name, records) of five images in batches."""
    module = module_of(name, operator, folder, images_per_call, steps)
    done = [
        module.predict_step(Batch(tuple(NAMES[i] for i in rows), (0,) * len(rows), TRUTHS[list(rows)], None))
        for rows in (range(i, min(i + batch_size, len(NAMES))) for i in range(0, len(NAMES), batch_size))
    ]
    return {name: x for one in done for name, x in zip(one.ids, one.x0, strict=True)}, [record for one in done for record in one.records]


def differing(found: dict, other: dict) -> list[str]:
    return [name for name in found if not torch.equal(found[name], other[name])]


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 4])
def test_a_long_guided_run_is_the_same_bit_by_bit_in_any_batch(size, tmp_path):
    """Of a length at which the next test sees rounding grow."""
    (one, records), *others = (restored("dps", "inpaint_random", tmp_path, batch_size, size) for batch_size in (1, 3))
    for other, theirs in others:
        assert differing(one, other) == []
        assert [scores(record) for record in theirs] == [scores(record) for record in records]


@pytest.mark.slow
def test_without_groups_rounding_depends_on_the_batch(tmp_path):
    one, three = (restored("dps", "inpaint_random", tmp_path, batch_size, None)[0] for batch_size in (1, 3))
    assert differing(one, three)


@pytest.mark.parametrize("name", options("solver"))
def test_every_solver_has_the_same_bits_in_any_batch(name, tmp_path):
    one, three = (restored(name, "inpaint_random", tmp_path, batch_size, 2, steps=2)[0] for batch_size in (1, 3))
    assert differing(one, three) == []


def test_a_group_is_filled_with_copies_of_its_last_item():
    batch = Batch(NAMES, (0, 1, 2, 3, 4), TRUTHS, None)
    first, last = groups_of(batch, 3)
    assert (first[0].ids, first[0].samples, first[1]) == (NAMES[:3], (0, 1, 2), 3)
    assert (last[0].ids, last[0].samples, last[1]) == (("d", "e", "e"), (3, 4, 4), 2)
    assert torch.equal(last[0].truth, TRUTHS[[3, 4, 4]]) and last[0].measured is None
    assert [*groups_of(batch, None)] == [(batch, 5)]


@pytest.mark.parametrize("stop_after", [0, 3, 4, 7])
def test_a_stop_in_any_group_leaves_a_batch_without_items(stop_after, tmp_path):
    """Four steps a group and three groups: before the first, within it, at its end and in the second."""
    asked = iter([False] * stop_after + [True] * 20)
    module = module_of("dps", "inpaint_random", tmp_path, 2, 4, should_stop=lambda: next(asked))
    done = module.predict_step(Batch(NAMES, (0,) * 5, TRUTHS, None))
    assert (done.ids, done.records, len(done.x0)) == ((), [], 0) and module.interrupted


def scores(record: dict) -> dict:
    return {key: value for key, value in record.items() if key not in ("seconds", "peak_memory_mib")}
