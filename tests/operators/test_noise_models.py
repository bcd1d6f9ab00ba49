"""Measurement noise: its moments, its likelihood, where it is added, and its independence of the batch."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from lazy import Lazy
from omegaconf import OmegaConf
from operator_cases import generators, random_images, random_like
from torch import Tensor

import conf
from diffusion_priors.diffusion.image_random import image_generator
from diffusion_priors.operators.identity import Identity
from diffusion_priors.operators.inpainting import InpaintBox, InpaintRandom
from diffusion_priors.operators.measurement import Measurement
from diffusion_priors.operators.noise_models import Gaussian, NoiseModel, NoNoise, Poisson
from diffusion_priors.operators.resampling import SuperResolution

stats = Lazy("scipy.stats")

CONFIGS = sorted((Path(conf.__file__).parent / "noise_model").glob("*.yaml"))

every_noise = pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
every_operator = pytest.mark.parametrize("operator", [Identity, InpaintRandom, SuperResolution])


def built(config: Path) -> NoiseModel:
    return instantiate(OmegaConf.load(config), _convert_="all")


def measure(noise: NoiseModel, operator, x: Tensor, ids, seed: int = 0):
    own = generators(ids, seed)
    return Measurement.of(operator.draw(x, own), noise, x, own)


@every_noise
@every_operator
def test_the_noise_of_an_image_does_not_depend_on_the_batch(config, operator):
    x = random_images(3, 2, 16, 20)
    together = measure(built(config), operator(), x, (4, 7, 9))
    for b, name in enumerate((4, 7, 9)):
        alone = measure(built(config), operator(), x[b : b + 1], (name,))
        torch.testing.assert_close(alone.y, together.y[b : b + 1], rtol=1e-13, atol=1e-14)
        torch.testing.assert_close(alone.sigma_y, together.sigma_y[b : b + 1], rtol=1e-13, atol=0)


@every_noise
def test_noise_belongs_to_the_image_and_the_seed(config):
    """The same image and seed give the same noise; another image or seed gives independent noise."""
    noise = built(config)
    x = random_images(1, 3, 48, 64).repeat(2, 1, 1, 1)
    y, again, other = (measure(noise, Identity(), x, (1, 2), seed).y for seed in (0, 0, 1))
    assert torch.equal(y, again)
    if isinstance(noise, NoNoise):
        return
    samples = torch.stack([*(y - x), *(other - x)]).flatten(1)
    correlations = torch.corrcoef(samples)[~torch.eye(4, dtype=torch.bool)]
    assert (correlations.abs() <= 5.0 / samples.shape[1] ** 0.5).all()


@every_noise
@pytest.mark.parametrize("operator", [InpaintRandom(), InpaintBox(random_place=True)], ids=lambda operator: type(operator).__name__)
def test_missing_pixels_carry_no_noise(config, operator):
    x = random_images(2, 3, 24, 20)
    noise = built(config)
    y = measure(noise, operator, x, (1, 2)).y
    missing = operator.mask.expand_as(y) == 0.0
    assert (y[missing] == 0.0).all()
    if not isinstance(noise, NoNoise):
        assert (y[~missing] != x[~missing]).double().mean() > 0.5


@every_noise
def test_a_given_measurement_is_kept_on_its_support(config):
    """Missing pixels are set to 0, no noise is added, and σ_y is that of a measurement made here."""
    x = random_images(2, 3, 24, 20)
    noise, operator = built(config), InpaintRandom()
    own = measure(noise, operator, x, (1, 2))
    given = Measurement.given(operator, noise, own.y + 0.7 * (1.0 - operator.mask))
    assert torch.equal(given.y, own.y)
    torch.testing.assert_close(given.sigma_y, own.sigma_y, rtol=1e-13, atol=0)


@every_noise
def test_noise_takes_the_type_of_the_image(config):
    measurement = measure(built(config), Identity(), random_images(2, 3, 8, 6).float(), (1, 2))
    assert measurement.y.dtype == measurement.sigma_y.dtype == torch.float32
    assert measurement.sigma_y.shape == (2, 1, 1, 1)


@every_noise
def test_the_root_mean_square_of_the_noise_is_sigma_y(config):
    """Per image within five standard errors, on images with all grey levels."""
    noise, x = built(config), random_images(3, 3, 96, 128)
    measurement = measure(noise, Identity(), x, range(3))
    squares = (measurement.y - x).square().flatten(1)
    error = squares.std(1) / squares.shape[1] ** 0.5
    # Poisson's σ_y² is estimated from the noisy y itself: mean light, of the noise's own standard error.
    estimate = 2.0 * measurement.sigma_y.flatten() ** 2 / squares.shape[1] ** 0.5
    assert ((squares.mean(1) - measurement.sigma_y.flatten() ** 2).abs() <= 5.0 * (error + estimate)).all()


@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.8])
def test_gaussian_noise_has_its_moments(sigma):
    """Mean 0, variance σ², third and fourth moments 0 and 3σ⁴: standard errors σ/√n, √2 σ²/√n, √15 σ³/√n, √96 σ⁴/√n."""
    x = random_images(2, 3, 128, 160)
    measurement = measure(Gaussian(sigma), Identity(), x, (1, 2))
    z = (measurement.y - x).flatten(1) / sigma
    for power, moment, variance in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)):
        assert ((z.pow(power).mean(1) - moment).abs() <= 5.0 * (variance / z.shape[1]) ** 0.5).all()
    torch.testing.assert_close(measurement.sigma_y, torch.full((2, 1, 1, 1), sigma, dtype=torch.float64), rtol=0, atol=0)


def test_neighbours_have_independent_noise():
    n = (Gaussian(1.0).sample(torch.zeros(1, 3, 128, 160), generators([1])))[0].double()
    for product in (n[:, 1:] * n[:, :-1], n[..., 1:] * n[..., :-1], n[0] * n[1]):
        assert product.mean().abs() <= 5.0 / product.numel() ** 0.5


def test_gaussian_noise_does_not_depend_on_the_image_and_scales_with_sigma():
    """y − A x0 = σ z with one z for an image, so runs at several σ differ in strength alone."""
    x = random_images(2, 3, 16, 20)
    z = Gaussian(1.0).sample(torch.zeros_like(x), generators((1, 2)))
    torch.testing.assert_close(Gaussian(0.3).sample(x, generators((1, 2))), x + 0.3 * z, rtol=1e-13, atol=1e-14)
    assert torch.equal(Gaussian(0.0).sample(x, generators((1, 2))), x)


@pytest.mark.parametrize("peak", [3.0, 40.0, 255.0, 4000.0])
@pytest.mark.parametrize("grey", [-0.9, 0.0, 1.0])
def test_poisson_noise_has_its_moments(peak, grey):
    """Counts k = peak (y + 1)/2 are whole, of mean and variance λ: standard errors √(λ/n) and √((λ + 2λ²)/n)."""
    x = torch.full((2, 3, 128, 160), grey, dtype=torch.float64)
    measurement = measure(Poisson(peak), Identity(), x, (1, 2))
    counts = (peak * (measurement.y + 1.0) / 2.0).flatten(1)
    rate, n = peak * (grey + 1.0) / 2.0, counts.shape[1]
    assert (counts - counts.round()).abs().max() <= 1e-9 * peak and (counts > -0.5).all()
    assert ((counts.mean(1) - rate).abs() <= 5.0 * (rate / n) ** 0.5).all()
    assert ((counts.var(1) - rate).abs() <= 5.0 * ((rate + 2.0 * rate**2) / n) ** 0.5).all()
    sigma = 2.0 / peak * rate**0.5
    assert ((measurement.sigma_y.flatten() - sigma).abs() <= 5.0 * sigma / (2.0 * (rate * n) ** 0.5)).all()


def test_negative_light_counts_as_none():
    y = Poisson(255.0).sample(torch.full((1, 1, 4, 4), -1.3), generators([1]))
    assert (y == -1.0).all()
    assert (Measurement.given(Identity(), Poisson(255.0), y).sigma_y == 0.0).all()


@pytest.mark.parametrize("grey", [-0.9, 0.8])
@pytest.mark.parametrize("operator", [InpaintRandom(0.2), InpaintBox()], ids=lambda operator: type(operator).__name__)
def test_sigma_y_of_poisson_noise_is_that_of_the_measured_pixels(operator, grey):
    """Missing pixels are filled with 0 and do not count as light: σ_y = 2 √(light/peak) whatever is missing."""
    x, peak = torch.full((2, 3, 64, 80), grey, dtype=torch.float64), 255.0
    measurement = measure(Poisson(peak), operator, x, (1, 2))
    rate, n = peak * (grey + 1.0) / 2.0, 3 * operator.mask.sum() / len(operator.mask)
    sigma = 2.0 / peak * rate**0.5
    assert ((measurement.sigma_y.flatten() - sigma).abs() <= 5.0 * sigma / (rate * n) ** 0.5).all()


def test_without_noise_y_is_the_clean_measurement():
    x = random_images(2, 3, 8, 12)
    measurement = measure(NoNoise(), SuperResolution(4), x, (1, 2))
    assert torch.equal(measurement.y, SuperResolution(4).draw(x, generators((1, 2)))(x))
    assert (measurement.sigma_y == 0.0).all()


def numbers(label: str) -> dict[str, float]:
    """The sigma that a label states, per unit."""
    return {unit: float(value) for value, unit in re.findall(r"([\d.e+-]+) in (\[[-\d]+, 1\])", label)}


@pytest.mark.parametrize("sigma", [0.05, 0.1, 1e-5, 0.0])
def test_the_label_of_gaussian_noise_states_both_units(sigma):
    """A standard deviation in [-1, 1] is twice that in [0, 1]."""
    assert numbers(Gaussian(sigma).label("[-1, 1]")) == pytest.approx({"[-1, 1]": sigma, "[0, 1]": sigma / 2}, rel=1e-5)


@pytest.mark.parametrize("peak", [1.0, 255.0, 1e6])
def test_the_label_of_poisson_noise_states_both_units(peak):
    """At mid-grey, λ = peak/2 counts: a standard deviation of √(1/(2 peak)) in [0, 1]."""
    grey = (0.5 / peak) ** 0.5
    assert numbers(Poisson(peak).label("[-1, 1]")) == pytest.approx({"[-1, 1]": 2 * grey, "[0, 1]": grey}, rel=5e-3)
    sigma = Measurement.given(Identity(), Poisson(peak), torch.zeros(1, 1, 4, 4, dtype=torch.float64)).sigma_y.item()
    assert sigma == pytest.approx(2 * grey)


def test_the_label_of_a_measurement_that_is_no_image_states_its_own_unit():
    for noise in (Gaussian(0.1), Poisson(255.0)):
        label = noise.label("k-space of [-1, 1] images")
        assert label.endswith("in k-space of [-1, 1] images") and "[0, 1]" not in label


def test_complex_noise_is_circular():
    """Real and imaginary parts are independent, each of standard deviation σ (5 standard errors); seeds behave as for real y."""
    clean = random_like(torch.zeros(2, 1, 64, 80, dtype=torch.complex128))
    n = Gaussian(0.3).sample(clean, generators((1, 2))) - clean
    parts = torch.stack([n.real, n.imag]).flatten(1)
    assert ((parts.var(1) - 0.3**2).abs() <= 5.0 * 2.0**0.5 * 0.3**2 / parts.shape[1] ** 0.5).all()
    assert torch.corrcoef(parts)[0, 1].abs() <= 5.0 / parts.shape[1] ** 0.5
    torch.testing.assert_close(Gaussian(0.3).sample(clean[1:], generators((2,))) - clean[1:], n[1:], rtol=1e-12, atol=1e-13)
    sigma = Gaussian(0.3).sigma(clean, torch.ones(()))
    assert sigma.shape == (2, 1, 1, 1) and not sigma.is_complex()


def test_noise_streams_are_those_of_existing_runs():
    """The first numbers of image 1 at seed 0: runs of earlier versions can be repeated."""
    clean = torch.zeros(1, 1, 1, 3, dtype=torch.float64)
    expected = torch.from_numpy(image_generator(0, 1, "measurement").standard_normal((1, 1, 3)))
    torch.testing.assert_close(Gaussian(1.0).sample(clean, generators([1]))[0], expected, rtol=0, atol=0)
    counts = image_generator(0, 1, "measurement").poisson(np.full((1, 1, 3), 20.0))
    assert (Poisson(40.0).sample(clean, generators([1]))[0].numpy() == counts / 40.0 * 2.0 - 1.0).all()


@pytest.mark.parametrize("peak", [3.0, 255.0])
def test_the_poisson_likelihood_is_the_probability_of_the_counts(peak):
    """Against SciPy, 0 counts and black included; light from black is impossible."""
    counts, light = torch.tensor([0.0, 0.0, 1.0, 7.0, 40.0]), torch.tensor([0.0, 2.5, 0.3, 9.0, 33.0])
    y, clean = (2.0 * values.double().view(1, 1, 1, -1) / peak - 1.0 for values in (counts, light))
    expected = -stats.poisson.logpmf(counts.numpy(), light.numpy()).sum()
    assert Poisson(peak).nll(y, clean, torch.ones(())).item() == pytest.approx(expected, rel=1e-6)
    assert Poisson(peak).nll(y, torch.full_like(y, -1.0), torch.ones(())).item() == float("inf")
    gradient = Poisson(peak).nll_gradient(y, torch.full_like(y, -1.2), torch.ones(()))
    assert gradient.isfinite().all() and (gradient[..., 2:] < 0.0).all()


@pytest.mark.parametrize("noise", [NoNoise(), Gaussian(0.0)], ids=["none", "zero"])
def test_noise_without_a_density_has_no_likelihood(noise):
    y = random_images(1, 1, 3, 3)
    assert not noise.has_density and Gaussian(0.1).has_density and Poisson().has_density
    for value in (noise.nll, noise.nll_gradient):
        with pytest.raises(ValueError, match=r"no density; set .*noise_model\.sigma=0\.05"):
            value(y, y, torch.ones(()))


def test_poisson_noise_refuses_a_complex_measurement():
    with pytest.raises(ValueError, match="complex; set noise_model=gaussian"):
        Poisson().sample(torch.zeros(1, 1, 4, 4, dtype=torch.complex64), generators([1]))


@pytest.mark.parametrize("sigma", [-0.05, float("nan")])
def test_a_negative_sigma_is_refused(sigma):
    with pytest.raises(ValueError, match=rf"sigma={sigma}; set noise_model\.sigma"):
        Gaussian(sigma)


@pytest.mark.parametrize("peak", [0.0, -1.0, float("nan")])
def test_a_peak_that_is_not_positive_is_refused(peak):
    with pytest.raises(ValueError, match=rf"peak={peak}; set noise_model\.peak"):
        Poisson(peak)
