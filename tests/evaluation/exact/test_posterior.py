"""Exact posteriors: compared with importance sampling in low dimension, and with the Wiener filter for images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from exact_cases import PRIORS, draws

from diffusion_priors.diffusion.analytic.laws import Gaussian
from diffusion_priors.diffusion.analytic.priors import law_of
from diffusion_priors.diffusion.analytic.shapes import PowerLaw
from diffusion_priors.diffusion.image_random import image_generator
from diffusion_priors.evaluation.exact.mixtures import CovarianceFactor, GaussianMixture
from diffusion_priors.evaluation.exact.posterior import LARGEST, Posterior, matrix_of
from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.blur import DeblurGaussian
from diffusion_priors.operators.inpainting import InpaintBox, InpaintRandom
from diffusion_priors.operators.linear import LinearOperator
from diffusion_priors.operators.random_matrix import RandomMatrix
from diffusion_priors.operators.resampling import SuperResolution


def drawn(operator: Operator, shape) -> Operator:
    return operator.draw(torch.zeros(1, *shape, dtype=torch.float64), [image_generator(0, "operator")])


@pytest.mark.parametrize("sigma", [0.2, 0.6])
@pytest.mark.parametrize("side", [2, 3])
@pytest.mark.parametrize("name", PRIORS)
def test_posterior_agrees_with_importance_sampling(name, side, sigma):
    """Mean, covariance and the probability of half spaces, from a million draws of the prior weighted by p(y | x0)."""
    law = law_of(PRIORS[name](side))
    matrix, _ = matrix_of(drawn(RandomMatrix(rows=side - 1, seed=3), law.shape), law.shape)
    x = draws(law, 1_000_000)
    y = matrix @ x[0] + 0.1
    weights = np.exp(-((y - x @ matrix.T) ** 2).sum(1) / (2 * sigma**2))
    weights /= weights.sum()
    error = 5 * (weights**2).sum() ** 0.5
    assert error < 0.05
    posterior = Posterior(law, matrix, sigma).given(y)

    mean = weights @ x
    covariance = (x - mean).T @ ((x - mean) * weights[:, None])
    assert (np.abs(posterior.mean - mean) < error * np.sqrt(np.diag(covariance))).all()
    assert np.abs(posterior.covariance - covariance).max() < 2 * error * np.diag(covariance).max()
    samples = posterior.sample(100_000, np.random.default_rng(1))
    for direction in np.eye(side):
        share = weights @ (x @ direction > mean @ direction)
        assert abs((samples @ direction > mean @ direction).mean() - share) < error + 5 * 0.5 / 100_000**0.5


def test_a_circular_blur_gives_the_wiener_filter():
    """μ = F⁻¹ [P ĥ* ŷ/(P |ĥ|² + σ²)] and a pixel's variance mean(σ² P/(P |ĥ|² + σ²))."""
    shape, sigma = (1, 16, 12), 0.1
    law = Gaussian(torch.zeros(()), PowerLaw(std=0.3)(shape))
    operator = drawn(DeblurGaussian(size=5, std=1.2, boundary="circular"), shape)
    matrix, measured = matrix_of(operator, shape)
    assert measured.all()
    y = np.random.default_rng(0).normal(size=(16, 12))
    posterior = Posterior(law, matrix, sigma).given(y.flatten())

    impulse = torch.zeros(1, *shape, dtype=torch.float64)
    impulse[..., 0, 0] = 1.0
    response = np.fft.fft2(operator(impulse)[0, 0].numpy())
    power = law.covariance.values[0].numpy()
    total = power * np.abs(response) ** 2 + sigma**2
    mean = np.fft.ifft2(power * response.conj() * np.fft.fft2(y) / total).real
    np.testing.assert_allclose(posterior.mean, mean.flatten(), atol=1e-10)
    np.testing.assert_allclose(np.diag(posterior.covariance), (sigma**2 * power / total).mean(), rtol=1e-9)


def test_the_posterior_is_the_prior_for_large_noise_and_the_truth_for_small_noise():
    law = law_of(PRIORS["mixture"](3))
    matrix = np.random.default_rng(0).normal(size=(3, 3))
    x = draws(law, 1)[0]
    vague, sharp = (Posterior(law, matrix, sigma).given(matrix @ x) for sigma in (1e4, 1e-4))
    prior = GaussianMixture(np.array([0.35, 0.65]), np.stack([p.mean.flatten().numpy() for _, p in law.components()]), vague.covariances)
    np.testing.assert_allclose(vague.weights, [0.35, 0.65], atol=1e-6)
    np.testing.assert_allclose(vague.mean, prior.mean, atol=1e-5)
    np.testing.assert_allclose(vague.covariances[0].matrix, law.components()[0][1].covariance.dense(), atol=1e-5)
    np.testing.assert_allclose(sharp.mean, x, atol=1e-2)
    assert np.trace(sharp.covariance) < 1e-5


@pytest.mark.parametrize(
    ("operator", "rows"), [(InpaintBox(size=(2, 2)), 12), (InpaintRandom(0.5), None), (SuperResolution(2), 4), (RandomMatrix(rows=5), 5)]
)
def test_the_matrix_is_the_operator_without_the_rows_that_are_not_measured(operator, rows):
    shape = (1, 4, 4)
    matrix, measured = matrix_of(drawn(operator, shape), shape)
    x = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(x.flatten(1).numpy() @ matrix.T, operator(x).flatten(1).numpy()[:, measured], atol=1e-12)
    assert (np.abs(matrix).sum(1) > 0).all()
    assert rows is None or len(matrix) == rows


def test_problems_without_an_exact_posterior_are_refused():
    class Square(Operator):
        def forward(self, x):
            return x**2

    class Plain(LinearOperator):
        def forward(self, x):
            return x

    with pytest.raises(ValueError, match="Square is not linear"):
        matrix_of(drawn(Square(), (1, 2, 2)), (1, 2, 2))
    with pytest.raises(ValueError, match=r"prior\.size"):
        matrix_of(Plain(), (3, 64, 64))
    assert LARGEST < 3 * 64 * 64
    with pytest.raises(ValueError, match=r"noise_model\.sigma"):
        Posterior(law_of(PRIORS["gaussian"](2)), np.array([[1.0, 0.0], [1.0, 0.0]]), 0.0)


def test_densities_integrate_to_one_and_samples_follow_them():
    """On a fine grid of the plane. The share of samples above a density equals the integral over that region."""
    covariances = [CovarianceFactor(np.array([[0.2, 0.1], [0.1, 0.3]])), CovarianceFactor(np.array([[0.1, -0.05], [-0.05, 0.1]]))]
    law = GaussianMixture(np.array([0.6, 0.4]), np.array([[-0.5, 0.0], [0.8, 0.4]]), covariances)
    ticks = np.linspace(-4, 4, 401)
    places = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    density = np.exp(law.log_density(places)) * (ticks[1] - ticks[0]) ** 2
    np.testing.assert_allclose(density.sum(), 1.0, atol=1e-6)
    np.testing.assert_allclose(density @ places, law.mean, atol=1e-6)
    np.testing.assert_allclose((places - law.mean).T @ ((places - law.mean) * density[:, None]), law.covariance, atol=1e-6)
    samples = law.sample(50_000, np.random.default_rng(0))
    for height in (-2.0, -1.0, -0.5):
        share = density[law.log_density(places) > height].sum()
        assert abs((law.log_density(samples) > height).mean() - share) < 5 * 0.5 / 50_000**0.5 + 2e-3


def test_a_projection_has_the_projected_law():
    rng = np.random.default_rng(2)
    shared = CovarianceFactor(np.cov(rng.normal(size=(4, 50))))
    law = GaussianMixture(np.array([0.2, 0.8]), rng.normal(size=(2, 4)), [shared, shared])
    axes = np.linalg.qr(rng.normal(size=(4, 2)))[0]
    np.testing.assert_allclose(law.along(axes).mean, law.mean @ axes)
    np.testing.assert_allclose(law.along(axes).covariance, axes.T @ law.covariance @ axes)
