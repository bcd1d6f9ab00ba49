"""Distributions in closed form, compared with each other, with autograd and with averages over samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffusion_priors.diffusion.analytic.covariances import Dense, Stationary
from diffusion_priors.diffusion.analytic.laws import Gaussian, Mixture
from diffusion_priors.diffusion.analytic.means import Drawn, Given
from diffusion_priors.diffusion.analytic.priors import exact, gaussian, law_of, mixture
from diffusion_priors.diffusion.analytic.shapes import FromFile, PowerLaw, RandomRotation
from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.image_random import image_generator
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.preconditioning import Eps
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.schedules import VE, Cosine, Flow, Linear

SHAPE = (3, 4, 6)
LEVELS = [Linear().table[t] for t in (0, 100, 500, 999)] + [Cosine().table[t] for t in (0, 500, 999)]


def images(count: int, shape=SHAPE, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, *shape)))


def stationary() -> Stationary:
    return PowerLaw(std=0.4, exponent=1.5, correlation=0.7)(SHAPE)


def gaussian_law() -> Gaussian:
    return Gaussian(torch.linspace(-0.5, 0.5, 72).view(SHAPE), stationary())


def mixture_law() -> Mixture:
    """Three components that overlap at high noise, each with its own covariance."""
    means = Drawn(components=3, std=0.3)(SHAPE)
    covariances = [stationary(), PowerLaw(0.2, 0.5)(SHAPE), RandomRotation(0.01, 0.3, seed=4)(SHAPE)]
    return Mixture([0.5, 0.3, 0.2], [Gaussian(mean, covariance) for mean, covariance in zip(means, covariances, strict=True)])


LAWS = {"gaussian": gaussian_law, "mixture": mixture_law}


@pytest.mark.parametrize("shape", [(1, 4, 6), (3, 5, 4), (1, 1, 7)])
def test_a_power_spectrum_is_its_dense_covariance(shape):
    """Functions of both agree. The variance of a pixel and the correlation of the channels have the values of the arguments."""
    covariance = PowerLaw(std=0.4, exponent=1.5, correlation=0.7)(shape)
    matrix = covariance.dense()
    torch.testing.assert_close(matrix, matrix.mT)
    torch.testing.assert_close(matrix.diagonal(), torch.full_like(matrix.diagonal(), 0.16))
    pixels = shape[1] * shape[2]
    if shape[0] == 3:
        torch.testing.assert_close(matrix[0, pixels], torch.tensor(0.7 * 0.16, dtype=torch.float64))
    dense, x = Dense(matrix, shape), images(2, shape)
    for gain in (torch.sqrt, lambda values: 1.0 / (values + 0.1), torch.log):
        torch.testing.assert_close(covariance.transform(gain, x), dense.transform(gain, x))
    torch.testing.assert_close(covariance.values.flatten().sort()[0], dense.values)


def test_the_power_of_drawn_images_falls_with_frequency_as_specified():
    """The mean power of drawn images is ∝ f^−2, and constant below one period per image."""
    law = Gaussian(torch.zeros(()), PowerLaw(std=0.3, exponent=2.0)((1, 16, 16)))
    x = law.draw([image_generator(0, b) for b in range(2000)])
    power = torch.fft.fft2(x[:, 0], norm="ortho").abs().square().mean(0)
    wanted = law.covariance.values[0]
    assert ((power / wanted - 1).abs() < 5 * (2 / 2000) ** 0.5).all()
    torch.testing.assert_close(wanted[0, 2] / wanted[0, 6], torch.tensor(9.0, dtype=torch.float64))


@pytest.mark.parametrize("level", LEVELS, ids=str)
def test_the_gaussian_law_is_its_formula_in_matrices(level):
    """x̂0 = m + α S (α² S + σ² I)⁻¹ (x − α m), its covariance σ² S (α² S + σ² I)⁻¹, and the density of N(α m, α² S + σ² I)."""
    law, x, v = gaussian_law(), images(3), images(3, seed=1)
    m, s = law.mean.flatten(), law.covariance.dense()
    total = level.alpha**2 * s + level.sigma**2 * torch.eye(72, dtype=torch.float64)
    away = x.flatten(1) - level.alpha * m
    wanted = m + level.alpha * away @ torch.linalg.solve(total, s)
    torch.testing.assert_close(law.x0(x, level).flatten(1), wanted, rtol=1e-6, atol=1e-9)
    wanted = level.sigma**2 * v.flatten(1) @ torch.linalg.solve(total, s)
    torch.testing.assert_close(law.covariance_times(x, level, v).flatten(1), wanted)
    torch.testing.assert_close(
        law.log_density(x, level), torch.distributions.MultivariateNormal(level.alpha * m, total).log_prob(x.flatten(1))
    )


@pytest.mark.parametrize("level", LEVELS, ids=str)
@pytest.mark.parametrize("name", LAWS)
def test_score_is_the_gradient_of_the_density_and_covariance_that_of_x0(name, level):
    """s = ∇ log p_t, and Cov[x0 | x_t] = (σ²/α) ∂x̂0/∂x_t."""
    law, x, v = LAWS[name](), level.alpha * 0.5 * images(3) + level.sigma * images(3, seed=2), images(3, seed=1)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(law.log_density(x, level).sum(), x)
    torch.testing.assert_close(law.score(x, level), gradient, rtol=1e-7, atol=1e-9)
    (product,) = torch.autograd.grad((law.x0(x, level) * v).sum(), x)
    wanted = law.covariance_times(x.detach(), level, v)
    torch.testing.assert_close(product, level.alpha / level.sigma**2 * wanted, rtol=1e-7, atol=1e-10)


def test_second_derivatives_go_through_the_symmetric_product():
    law, level = mixture_law(), LEVELS[2]
    x = images(1).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda given: law.x0(given, level).square().sum(), x, nondet_tol=1e-8)


def test_a_mixture_of_one_or_of_equal_components_is_the_gaussian():
    one, x, v = gaussian_law(), images(2), images(2, seed=1)
    for law in (Mixture([1.0], [one]), Mixture([0.3, 0.7], [one, one]), Mixture([1.0, 0.0], [one, mixture_law().parts[1]])):
        for level in LEVELS:
            torch.testing.assert_close(law.x0(x, level), one.x0(x, level))
            torch.testing.assert_close(law.log_density(x, level), one.log_density(x, level))
            torch.testing.assert_close(law.covariance_times(x, level, v), one.covariance_times(x, level, v))


@pytest.mark.parametrize("sigma", [0.4, 1.0])
def test_the_mixture_agrees_with_weighted_samples(sigma):
    """E and Cov of x0 given x_t from 400 000 draws of x0, weighted by N(x_t; α x0, σ² I): within 5 standard errors."""
    covariances = [RandomRotation(0.02, 0.3, seed=k)((1, 1, 2)) for k in range(3)]
    means = Given([[-0.8, 0.2], [0.7, 0.6], [0.1, -0.5]])((1, 1, 2))
    law = Mixture([0.5, 0.2, 0.3], [Gaussian(m, s) for m, s in zip(means, covariances, strict=True)])
    level = NoiseLevel(0, 0.8, sigma)
    rng = np.random.default_rng(0)
    draws = np.concatenate(
        [
            rng.multivariate_normal(part.mean.flatten().numpy(), part.covariance.dense().numpy(), round(400_000 * weight))
            for weight, part in law.components()
        ]
    )
    x = np.array([0.1, 0.25])
    weights = np.exp(-((x - level.alpha * draws) ** 2).sum(1) / (2 * sigma**2))
    weights /= weights.sum()
    mean = weights @ draws
    covariance = (draws - mean).T @ ((draws - mean) * weights[:, None])
    place = torch.from_numpy(x).view(1, 1, 1, 2)
    error = 5 * (weights**2).sum() ** 0.5 * np.sqrt(np.diag(covariance))
    assert (np.abs(law.x0(place, level).flatten().numpy() - mean) < error).all()
    units = torch.eye(2, dtype=torch.float64).view(2, 1, 1, 2)
    found = law.covariance_times(place.expand(2, -1, -1, -1), level, units).flatten(1).numpy()
    assert np.abs(found - covariance).max() < 8 * (weights**2).sum() ** 0.5 * covariance.max()


def test_draws_follow_the_law_and_use_one_generator_per_image():
    law = Mixture([0.7, 0.3], [Gaussian(torch.tensor(m), RandomRotation(0.1, 0.4)((1, 1, 2))) for m in (-2.0, 2.0)])
    x = law.draw([image_generator(0, b) for b in range(4000)]).flatten(1)
    right = x[:, 0] > 0
    assert abs(right.double().mean() - 0.3) < 5 * (0.21 / 4000) ** 0.5
    own = x[~right] + 2.0
    wanted = law.parts[0].covariance.dense()
    assert ((own.T @ own / len(own) - wanted).abs() < 5 * wanted.max() * (2 / len(own)) ** 0.5).all()
    torch.testing.assert_close(law.draw([image_generator(0, 17)])[0].flatten(), x[17])


@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=lambda s: type(s).__name__)
def test_the_network_returns_x0_at_the_levels_of_the_schedule(schedule):
    """Float32 outside, float64 inside, no clamping; the levels may differ within a batch."""
    prior = exact(mixture_law(), schedule)
    denoiser, x = Denoiser(prior), 3.0 * images(4).float()
    for t in (0, 400, 999):
        x0, fraction, *_ = denoiser(x, prior.image_schedule.table[t])
        assert x0.dtype == torch.float32
        assert fraction is None
        torch.testing.assert_close(x0, law_of(prior).x0(x.double(), schedule.table[t]).float())
    assert prior.network(x, torch.zeros(4, dtype=torch.long)).abs().max() > 1.0
    mixed = prior.network(x, torch.tensor([3, 700, 3, 10]))
    torch.testing.assert_close(mixed[1:2], prior.network(x[1:2], torch.tensor([700])))
    torch.testing.assert_close(mixed[[0, 2]], prior.network(x[[0, 2]], torch.tensor([3, 3])))
    assert prior.probe() is False
    assert len(prior.fingerprint()) == 16


@pytest.mark.parametrize("schedule", [VE(), Flow()], ids=lambda s: type(s).__name__)
def test_the_probe_asks_a_network_only_for_times_of_its_schedule(schedule):
    """Continuous schedules do not contain t = 0."""
    assert exact(mixture_law(), schedule).probe() is False


def test_different_laws_have_different_fingerprints():
    priors = [gaussian(Linear(), PowerLaw(std), size=(4, 4)) for std in (0.3, 0.3, 0.31)]
    assert priors[0].fingerprint() == priors[1].fingerprint() != priors[2].fingerprint()


def test_a_dense_covariance_is_read_from_a_file(tmp_path):
    matrix = stationary().dense().numpy()
    np.save(tmp_path / "covariance.npy", matrix)
    prior = gaussian(Linear(), FromFile(str(tmp_path / "covariance.npy")), size=SHAPE[1:])
    np.testing.assert_allclose(law_of(prior).covariance.dense(), matrix, atol=1e-12)


REFUSED = [
    (lambda path: PowerLaw(std=0.0), "prior.covariance.std"),
    (lambda path: PowerLaw(correlation=1.0), "prior.covariance.correlation"),
    (lambda path: PowerLaw(exponent=float("nan")), "prior.covariance.exponent"),
    (lambda path: RandomRotation(0.5, 0.1), "0.5 to 0.1"),
    (lambda path: Drawn(components=0), "prior.means.components"),
    (lambda path: Given([[0.0, 1.0]])((1, 2, 2)), "1 or 4 numbers"),
    (lambda path: Given([])((1, 2, 2)), "at least one"),
    (lambda path: FromFile(str(path / "none.npy"))((1, 1, 2)), "prior.covariance.path"),
    (lambda path: Dense(torch.eye(3), (1, 1, 2)), "2 x 2 matrix, got 3 x 3"),
    (lambda path: Dense(torch.tensor([[1.0, 0.5], [0.0, 1.0]]), (1, 1, 2)), "symmetric"),
    (lambda path: Dense(torch.tensor([[1.0, 2.0], [2.0, 1.0]]), (1, 1, 2)), "positive definite"),
    (lambda path: Stationary(torch.tensor([[1.0, 2.0, 3.0]]), torch.eye(1)), "the same at k and −k"),
    (lambda path: Stationary(torch.ones(2, 2), torch.zeros(1, 1)), "positive definite"),
    (lambda path: mixture(Linear(), PowerLaw(), Drawn(2), size=(4, 4), weights=[0.5, 0.6]), "prior.weights"),
    (lambda path: mixture(Linear(), PowerLaw(), Drawn(2), size=(4, 4), weights=[1.0]), "prior.weights"),
    (lambda path: gaussian(Linear(), PowerLaw(), size=(4, 0)), "prior.size"),
    (lambda path: gaussian(Linear(), PowerLaw(), size=(4, 4), channels=2), "prior.channels"),
    (lambda path: law_of(Prior(torch.nn.Identity(), Linear(), Eps())), "prior=gaussian"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_bad_values_are_refused_with_the_override_that_fixes_them(make, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make(tmp_path)
