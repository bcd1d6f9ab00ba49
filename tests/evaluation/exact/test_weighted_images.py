"""Posteriors over a list of images: weights by enumeration, and solvers on a problem that is not linear."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from exact_cases import experiment, outcome
from lazy import Lazy

from diffusion_priors.diffusion.analytic.covariances import Dense
from diffusion_priors.diffusion.analytic.empirical import Empirical
from diffusion_priors.diffusion.analytic.laws import Gaussian, Mixture
from diffusion_priors.diffusion.analytic.means import Drawn
from diffusion_priors.diffusion.analytic.priors import exact, law_of
from diffusion_priors.diffusion.grids import Trailing
from diffusion_priors.diffusion.image_random import image_generator
from diffusion_priors.diffusion.schedules import Linear
from diffusion_priors.evaluation.exact.distances import Reference, distances, unit_directions
from diffusion_priors.evaluation.exact.experiment import Outcome
from diffusion_priors.evaluation.exact.plots import maps
from diffusion_priors.evaluation.exact.posterior import posterior_of
from diffusion_priors.evaluation.exact.results import clouds
from diffusion_priors.evaluation.exact.table import headings, rows
from diffusion_priors.evaluation.exact.weighted_images import NEAR, WeightedImages
from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.blur import DeblurGaussian
from diffusion_priors.operators.inpainting import InpaintRandom
from diffusion_priors.operators.measurement import Measurement
from diffusion_priors.operators.noise_models import Gaussian as GaussianNoise
from diffusion_priors.operators.noise_models import NoNoise, Poisson
from diffusion_priors.operators.phase_retrieval import PhaseRetrieval
from diffusion_priors.operators.random_matrix import RandomMatrix
from diffusion_priors.solvers.base import Guided
from diffusion_priors.solvers.mmps import MMPS

stats = Lazy("scipy.stats")

SHAPE = (1, 6, 6)
COUNT = 12
WEIGHTS = (np.arange(COUNT) + 1.0) / 78.0
SIGMA = 0.25


def law() -> Empirical:
    """Six smooth images and the same turned by 180°, which phase retrieval cannot tell apart; their weights differ."""
    images = Drawn(components=6, std=0.25, seed=3)(SHAPE)
    return Empirical(torch.cat([images, images.flip(-2, -1)]), WEIGHTS.tolist())


class Square(Operator):
    """y = x0², which knows no sign."""

    def forward(self, x0):
        return x0**2


class Partial(Operator):
    """y = x0², of which the left half is measured; the other half is not 0 in A(x0)."""

    def forward(self, x0):
        return x0**2

    def support(self, y):
        return (torch.arange(6) < 3).to(y.real).expand(1, 1, 6, 6)


OPERATORS = {
    "partial": Partial,
    "phases": PhaseRetrieval,
    "square": Square,
    "matrix": lambda: RandomMatrix(rows=5),
    "mask": lambda: InpaintRandom(0.5),
    "blur": lambda: DeblurGaussian(size=5, std=1.0),
}
GAUSSIAN = (GaussianNoise(0.5), lambda y, clean: stats.norm.logpdf(y, clean, 0.5))
POISSON = (Poisson(40.0), lambda y, clean: stats.poisson.logpmf(np.rint(20.0 * (y + 1.0)), np.maximum(20.0 * (clean + 1.0), 0.0)))


@pytest.mark.parametrize("noise", [GAUSSIAN, POISSON], ids=["gaussian", "poisson"])
@pytest.mark.parametrize("name", OPERATORS)
def test_the_weights_are_bayes_rule_image_by_image(name, noise):
    """v_i ∝ w_i p(y | A(x_i)), one image after another with SciPy's densities, over the entries that are measured."""
    (noise_model, density), operator, prior = noise, OPERATORS[name](), law()
    operator.draw(torch.zeros(1, *SHAPE, dtype=torch.float64), [image_generator(0, "operator")])
    given = posterior_of(prior, operator, noise_model)
    measurement = Measurement.of(operator, noise_model, prior.images[4:5].double(), [image_generator(0, "noise")])
    y, measured = measurement.y[0].numpy(), operator.support(measurement.y).expand_as(measurement.y)[0].numpy() > 0
    cleans = [operator(image[None].double())[0].numpy() for image in prior.images]
    logs = np.array([np.log(w) + density(y, clean)[measured].sum() for w, clean in zip(WEIGHTS, cleans, strict=True)])
    wanted = np.exp(logs - logs.max()) / np.exp(logs - logs.max()).sum()
    assert 1.0 - wanted.max() > 0.01
    np.testing.assert_allclose(given(measurement.y).weights, wanted, rtol=1e-6, atol=1e-12)


def test_a_narrow_mixture_has_the_same_posterior_weights():
    """For a linear operator: the closed form of Gaussians with a covariance of 1e-8 around the images."""
    prior, operator = law(), RandomMatrix(rows=5)
    operator.draw(torch.zeros(1, *SHAPE, dtype=torch.float64), [image_generator(0, "operator")])
    narrow = Dense(1e-8 * torch.eye(36, dtype=torch.float64), SHAPE)
    mixture = Mixture(WEIGHTS.tolist(), [Gaussian(image, narrow) for image in prior.images])
    y = operator(prior.images[2:3].double()) + 0.1
    found, wanted = (posterior_of(one, operator, GaussianNoise(0.1))(y) for one in (prior, mixture))
    np.testing.assert_allclose(found.weights, wanted.weights, atol=1e-5)
    np.testing.assert_allclose(found.mean, wanted.mean, atol=1e-4)
    np.testing.assert_allclose(found.covariance, wanted.covariance, atol=1e-4)


def test_moments_draws_and_the_nearest_image():
    rng = np.random.default_rng(0)
    exact_law = WeightedImages(WEIGHTS, rng.normal(size=(COUNT, 5)))
    np.testing.assert_allclose(exact_law.mean, np.average(exact_law.images, axis=0, weights=WEIGHTS))
    np.testing.assert_allclose(exact_law.covariance, np.cov(exact_law.images.T, aweights=WEIGHTS, ddof=0))
    drawn = exact_law.part_of(exact_law.sample(20_000, rng))
    assert (np.abs(np.bincount(drawn) / 20_000 - WEIGHTS) < 5 * (WEIGHTS / 20_000) ** 0.5).all()
    x = rng.normal(size=(50, 5))
    np.testing.assert_array_equal(exact_law.part_of(x), np.linalg.norm(x[:, None] - exact_law.images, axis=2).argmin(1))


def test_a_sample_is_an_image_up_to_a_root_mean_square():
    rng = np.random.default_rng(0)
    exact_law = WeightedImages(WEIGHTS, 3.0 * rng.normal(size=(COUNT, 5)))
    reference, directions = Reference.of(exact_law, 1000, 3, rng), unit_directions(5, 50, rng)
    x = exact_law.sample(1000, rng)
    away = np.where(np.arange(1000) < 300, 0.9, 1.1)[:, None] * NEAR
    found = distances(x + away, reference, directions)
    assert found["on_image"] == pytest.approx(0.3)
    assert not {"inside_50", "inside_95"} & found.keys()
    assert found["weights"] < 0.1


def test_a_posterior_of_one_image_has_no_scale_and_does_not_stop_the_run():
    exact_law = WeightedImages(np.array([0.0, 1.0]), np.eye(2, 3))
    rng = np.random.default_rng(0)
    found = distances(exact_law.sample(20, rng), Reference.of(exact_law, 20, 2, rng), unit_directions(3, 5, rng))
    assert not np.isfinite(found["w2"])
    assert (found["weights"], found["heaviest"], found["on_image"]) == (0.0, 1.0, 1.0)


def test_problems_without_an_exact_posterior_are_refused():
    drawn = PhaseRetrieval().draw(torch.zeros(1, *SHAPE, dtype=torch.float64), [image_generator(0, "operator")])
    with pytest.raises(ValueError, match=r"noise_model=gaussian noise_model\.sigma"):
        posterior_of(law(), drawn, NoNoise())
    with pytest.raises(ValueError, match=r"not linear; choose another operator, or prior=empirical"):
        posterior_of(Mixture([1.0], [Gaussian(torch.zeros(SHAPE), Dense(torch.eye(36), SHAPE))]), drawn, GaussianNoise(0.1))
    with pytest.raises(ValueError, match=r"prior\.size"):
        posterior_of(Empirical(torch.zeros(1, 3, 64, 64)), drawn, GaussianNoise(0.1))
    with pytest.raises(ValueError, match="linear operator"):
        experiment(exact(law(), Linear()), MMPS(), PhaseRetrieval())


class Informed(Guided):
    """x̂0 = E[x0 | x_t, y] = Σ_i v_i x_i, v_i ∝ w_i p(y | x_i) N(x_t; α x_i, σ² I): the posterior's own denoiser.

    The arguments introduce errors: `strength` multiplies log p(y | x_i), `swapped` gives an image the likelihood of another.
    """

    def __init__(self, strength: float = 1.0, swapped: bool = False) -> None:
        self.strength, self.swapped = strength, swapped

    def estimate(self, x, level, problem):
        prior, measurement = law_of(exact(law(), Linear())), problem.measurement
        clean = measurement.operator(prior.images)
        squares = (measurement.y[:, None] - clean).flatten(2).square().sum(2).double()
        likelihood = -self.strength * squares / (2.0 * SIGMA**2)
        likelihood = likelihood.roll(1, 1) if self.swapped else likelihood
        chances = (prior._logits(x.double(), level) + likelihood).softmax(1)
        return problem.denoiser(x, level)._replace(x0=prior.combined(chances).float())


@cache
def compared(measurements: int = 0, **wrong: float) -> Outcome:
    sizes = {"posteriors": 3, "samples": 300, "measurements": measurements, "ranks": 9}
    return outcome(exact(law(), Linear()), Informed(**wrong), PhaseRetrieval(), SIGMA, Trailing(40), **sizes)


def test_the_posteriors_own_denoiser_is_as_good_as_exact_samples():
    """With 40 steps of DDPM on a nonlinear problem: on images, with their weights, and the ranks of the truth are uniform."""
    found, floor = compared(100).distances, compared(100).floor
    assert found["on_image"] == floor["on_image"] == 1.0
    assert found["weights"] < 1.6 * floor["weights"]
    assert abs(found["heaviest"] - floor["heaviest"]) < 4 * (2 * 0.25 / 900) ** 0.5
    assert found["w2"] < 1.6 * floor["w2"]
    assert abs(found["spread"] - 1.0) < 0.06  # 4 standard errors of the share of a heavy mode, as it enters the variance
    assert found["ranks"] > 0.01
    assert floor["ranks"] > 0.01
    assert 0.3 < np.mean([one.weights.max() for one in compared(100).posteriors]) < 0.9


def test_the_plot_of_a_measurement_that_is_no_image_leaves_it_out():
    """Phases are lost, so that y gives no image to show: the columns are the truth and the solver."""
    arrays = clouds(compared())
    assert "y" not in arrays
    np.testing.assert_allclose(arrays["mean"], compared().posteriors[0].mean, atol=1e-6)
    assert [axes.get_title() for axes in maps("nonlinear", [("informed", arrays)]).axes[:2]] == ["truth and exact", "informed"]


def test_the_table_has_the_columns_that_its_problems_have():
    spent = {"solver": "dps", "settings": {}, "failed": 0, "samples": 9, "seconds": 1.0, "nfe_forward": 3, "nfe_vjp": 3, "label": "dps"}
    found = {name: spent | {"problem": name} for name in ("nonlinear", "random_4")}
    found["nonlinear"] |= {kind: getattr(compared(), kind) for kind in ("distances", "floor")}
    found["random_4"] |= {kind: {"w2": 0.5, "inside_50": 0.4, "inside_95": 0.9, "ranks": None} for kind in ("distances", "floor")}
    assert {"on an image", "weights error", "heaviest mode"} <= {*headings([found["nonlinear"]])}
    assert not {"in 50 %", "in 95 %", "ranks p"} & {*headings([found["nonlinear"]])}
    assert headings([found["random_4"]])[2:5] == ["sliced W₂", "in 50 %", "in 95 %"]
    names, (_, nonlinear, _, random_4) = headings([*found.values()]), rows([*found.values()])
    assert [nonlinear[names.index(name)] for name in ("in 50 %", "on an image")] == ["–", "100%"]
    assert [random_4[names.index(name)] for name in ("in 50 %", "on an image")] == ["40%", "–"]


@pytest.mark.parametrize("wrong", [{"strength": -1.0}, {"strength": 0.0}, {"strength": 4.0}, {"swapped": True}], ids=str)
def test_an_error_of_the_likelihood_is_detected(wrong):
    """A wrong sign, no likelihood, half of σ_y, the likelihood of another image: the weights are off, the samples still images."""
    found, floor = compared(**wrong).distances, compared().floor
    assert found["on_image"] == 1.0
    assert found["weights"] > 3 * floor["weights"]
    assert found["w2"] > 1.5 * floor["w2"]
