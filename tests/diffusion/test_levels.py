"""One noise level: x, x̂0, ε and the score are four ways to say the same."""

import pytest
import torch

from diffusion_priors.diffusion.levels import CLEAN, NoiseLevel

LEVELS = [NoiseLevel(3, 0.8, 0.6), NoiseLevel(999, 0.006, 0.99998), NoiseLevel(0, 1.0, 40.0), NoiseLevel(0.3, 0.7, 0.3)]


@pytest.fixture(params=LEVELS, ids=["vp", "vp-noisiest", "ve", "flow"])
def level(request):
    return request.param


@pytest.fixture
def images():
    return torch.randn(3, 2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_diffusing_and_reading_the_noise_are_inverse(level, images):
    x0, z, _ = images
    torch.testing.assert_close(level.eps(level.diffuse(x0, z), x0), z, rtol=1e-10, atol=1e-10)


def test_the_noise_of_a_clean_level_is_none(images):
    x0, z, _ = images
    assert torch.equal(CLEAN.diffuse(x0, z), x0)


def test_the_score_is_the_gradient_of_the_log_density(level, images):
    """p_t(x | x0) = N(α x0, σ²)."""
    x0, z, _ = images
    x = level.diffuse(x0, z).requires_grad_()
    log_density = -((x - level.alpha * x0) ** 2).sum() / (2 * level.sigma**2)
    (gradient,) = torch.autograd.grad(log_density, x)
    torch.testing.assert_close(level.score(x.detach(), x0), gradient, rtol=1e-12, atol=1e-12)


def test_the_score_is_minus_the_noise_over_sigma(level, images):
    x, x0, _ = images
    torch.testing.assert_close(level.score(x, x0), -level.eps(x, x0) / level.sigma, rtol=1e-12, atol=1e-12)


def test_the_guided_x0_has_the_augmented_score(level, images):
    """score(x̃0) = score(x̂0) + δ."""
    x, x0, change = images
    guided = level.guided(x0, change)
    torch.testing.assert_close(level.score(x, guided), level.score(x, x0) + change, rtol=1e-9, atol=1e-9)


def test_no_change_of_score_leaves_x0_alone(level, images):
    _, x0, _ = images
    assert torch.equal(level.guided(x0, torch.zeros_like(x0)), x0)


def test_a_gaussian_prior_guided_by_its_likelihood_gives_the_posterior_mean(level, images):
    """x0 ~ N(0, 1), y = x0 + τ n: both x̂0 and ∇ log p(y | x_t) are known in closed form, and so is E[x0 | x_t, y]."""
    x, y, _ = images
    a, s, tau = level.alpha, level.sigma, 0.5
    marginal = a**2 + s**2
    x0, spread = a * x / marginal, s**2 / marginal  # mean and variance of x0 given x_t
    likelihood_score = (a / marginal) * (y - x0) / (spread + tau**2)
    posterior = (a * x / s**2 + y / tau**2) / (1 + a**2 / s**2 + 1 / tau**2)
    torch.testing.assert_close(level.guided(x0, likelihood_score), posterior, rtol=1e-10, atol=1e-10)
