"""Restoring a batch: what comes out for a y that is no image, for solvers without y, and where a stop is requested."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from configured import SmallNetwork
from lazy import Lazy
from own_operators import EveryFourthColumn, PhaseRetrieval
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.grids import Linspace
from diffusion_priors.diffusion.preconditioning import Eps
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.schedules import Linear
from diffusion_priors.diffusion.transitions import FixedSmall
from diffusion_priors.evaluation.metrics.per_image import Metrics
from diffusion_priors.evaluation.restoration.batches import Batch, Batches, Items
from diffusion_priors.evaluation.restoration.folder import save_images
from diffusion_priors.evaluation.restoration.frozen import FrozenImages, freeze
from diffusion_priors.evaluation.restoration.images import CleanImages
from diffusion_priors.images.io import to_image
from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.identity import Identity
from diffusion_priors.operators.kspace_masks import Equispaced
from diffusion_priors.operators.mri import MRI
from diffusion_priors.operators.noise_models import Gaussian
from diffusion_priors.runs.layout import DRAWING, FIRST_LOOK, MEASUREMENT, TRUTH, RunLayout
from diffusion_priors.runs.reading.png import description, read_png
from diffusion_priors.solvers.base import Solver
from diffusion_priors.solvers.dps import DPS
from diffusion_priors.solvers.unconditional import Unconditional

if TYPE_CHECKING:
    from diffusion_priors.evaluation.restoration.module import RestorationModule

restoration = Lazy("diffusion_priors.evaluation.restoration.module")
pl = Lazy("pytorch_lightning")
predict = Lazy("diffusion_priors.evaluation.restoration.predict")

SHAPE = (3, 16, 16)
STEPS = 4


def module(operator: Operator, solver: Solver, **how) -> RestorationModule:
    prior = Prior(SmallNetwork().float(), Linear(), Eps(), size=SHAPE[1:])
    plan = solver.plan(Linspace(STEPS), prior.image_schedule)
    return restoration.RestorationModule(Denoiser(prior), solver, operator, Gaussian(0.05), FixedSmall(), plan, Metrics(), SHAPE, **how)


def batch(*names: str) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(names, (0,) * len(names), torch.rand(len(names), *SHAPE, generator=generator) * 2 - 1, None)


@pytest.mark.parametrize("operator", [PhaseRetrieval, EveryFourthColumn])
def test_a_y_that_is_no_image_is_kept_as_a_tensor_and_gets_no_scores(tmp_path, operator):
    """Real and larger than the image, or complex: DPS restores it, and the record has everything but the measurement's scores."""
    done = module(operator(), DPS(0.1)).predict_step(batch("a", "b"))
    layout = RunLayout(tmp_path)
    for b, record in enumerate(done.records):
        assert record["psnr_measurement"] is None and record["ssim_measurement"] is None
        assert math.isfinite(record["psnr"]) and record["sigma_y"] == pytest.approx(0.05)
        difference = done.y[b] - operator()(done.x0[b : b + 1])[0]
        numbers = torch.view_as_real(difference) if difference.is_complex() else difference
        expected = numbers.square().mean().sqrt().item()
        assert record["residual"] == pytest.approx(expected, rel=1e-4)
        save_images(layout, done, b)
        kept = load_file(layout.measurement(record["id"]))["y"]
        assert torch.equal(kept, done.y[b]) and kept.dtype == done.y.dtype
        assert not layout.image(record["id"], MEASUREMENT).exists() and layout.image(record["id"], TRUTH).exists()


@pytest.mark.parametrize("images_per_call", [None, 1])
def test_a_y_that_is_no_image_is_drawn_and_has_no_scores(tmp_path, images_per_call):
    """drawing.png and first-look.png say what they are; neither is measurement.png. An image that is measured has none of them."""
    done = module(MRI(Equispaced(2.0)), DPS(0.1), images_per_call=images_per_call).predict_step(batch("a", "b"))
    layout, operator = RunLayout(tmp_path), MRI(Equispaced(2.0)).draw(done.truth, [None, None])
    for b, name in enumerate("ab"):
        save_images(layout, done, b)
        drawing, look = (read_png(layout.image(name, kind)) for kind in (DRAWING, FIRST_LOOK))
        assert description(drawing) == "k-space magnitude; k_y by k_x; black -60 dB, white 0 dB" and drawing.mode == "L"
        assert description(look) == "zero-filled"
        assert np.array_equal(np.asarray(look), np.asarray(to_image(operator.adjoint(done.y)[b])))
        assert not layout.image(name, MEASUREMENT).exists() and layout.measurement(name).exists()
        assert all(done.records[b][f"{metric}_measurement"] is None for metric in ("psnr", "ssim"))
    assert module(Identity(), DPS(0.1)).predict_step(batch("a")).views == [[]]


@pytest.mark.parametrize("operator", [PhaseRetrieval, EveryFourthColumn])
def test_a_y_that_is_no_image_is_frozen_and_read_back(tmp_path, operator):
    class Two(Items):
        has_truth = True

        def __getitem__(self, item: int) -> Batch:
            return Batch((self.ids[item],), (0,), batch(*self.ids).truth[item : item + 1], None)

    freeze(tmp_path, module(operator(), DPS()), Two(["a", "b"]), {})
    frozen = FrozenImages(tmp_path)
    frozen.check(operator(), SHAPE, {})
    read = module(operator(), DPS()).measure(Batches(frozen, [[0, 1]])[0])
    made = module(operator(), DPS()).measure(batch("a", "b"))
    torch.testing.assert_close(read.y, made.y)
    assert read.y.dtype == made.y.dtype


def test_an_image_that_is_measured_is_shown_and_scored():
    done = module(Identity(), DPS(0.1)).predict_step(batch("a"))
    assert torch.equal(done.measurement_image, done.y)
    error = (done.y.clamp(-1, 1) - done.truth).square().mean().item() / 4
    assert done.records[0]["psnr_measurement"] == pytest.approx(-10 * np.log10(error), abs=0.1)  # 8-bit


@pytest.mark.parametrize("operator", [PhaseRetrieval, EveryFourthColumn])
def test_a_solver_that_uses_no_measurement_makes_none(operator):
    done = module(operator(), Unconditional()).predict_step(Batch(("a",), (0,), None, None))
    assert done.y is None and done.measurement_image is None
    record = done.records[0]
    assert (record["residual"], record["sigma_y"], record["measurement_hash"], record["error"]) == (None, None, None, None)


def test_what_a_solver_reports_is_in_the_record_of_its_image():
    class Reporting(DPS):
        def step(self, state, step, problem):
            state, x0, _ = super().step(state, step, problem)
            return state, x0, {"count": torch.tensor([1.0, math.nan])}

    done = module(Identity(), Reporting(0.1)).predict_step(batch("a", "b"))
    assert [record["info"] for record in done.records] == [{"count": 1.0}, {"count": None}]


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_an_interrupted_batch_and_all_later_ones_have_no_items(step):
    """Whichever step the stop is requested at, the network is called no more."""
    asked = iter([False] * step + [True] * 10)
    interrupted = module(Identity(), DPS(0.1), should_stop=lambda: next(asked))
    for _ in range(2):
        done = interrupted.predict_step(batch("a", "b"))
        assert done.records == [] and done.ids == () and len(done.x0) == 0
    assert interrupted.interrupted and interrupted.denoiser.network.calls == step


@pytest.mark.parametrize("operator", [PhaseRetrieval, Identity])
def test_any_trainer_runs_it(operator):
    """Lightning's Trainer predicts in inference mode, on copies of the batch that autograd refuses. DPS needs gradients."""
    made = module(operator(), DPS(0.1))
    expected = made.predict_step(batch("a", "b"))
    measured = Batch(("a", "b"), (0, 0), None, expected.y)
    expected_again = made.predict_step(measured)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    for given, restored in ((batch("a", "b"), expected), (measured, expected_again)):
        (done,) = trainer.predict(made, DataLoader([given], batch_size=None))
        assert torch.equal(done.x0, restored.x0) and done.records[0]["residual"] == restored.records[0]["residual"]


def test_no_batch_is_read_after_a_stop():
    answers = iter([False, False, True])
    sampler = predict.UntilStopped(Batches(CleanImages.__new__(CleanImages), [[0], [1], [2], [3]]), lambda: next(answers))
    assert list(sampler) == [0, 1] and sampler.stopped and len(sampler) == 4
