"""The laws of operators/noise: draws and densities against SciPy, gradients against slopes, strengths in both units."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lazy import Lazy
from operator_cases import generators, random_images, random_like
from torch import Tensor

from diffusion_priors.operators.identity import Identity
from diffusion_priors.operators.inpainting import InpaintRandom
from diffusion_priors.operators.measurement import Measurement
from diffusion_priors.operators.noise.laplace import Laplace
from diffusion_priors.operators.noise.poisson_gaussian import PoissonGaussian
from diffusion_priors.operators.noise.salt_and_pepper import SaltAndPepper
from diffusion_priors.operators.noise.uniform import Uniform
from diffusion_priors.operators.noise_models import NoiseModel

stats = Lazy("scipy.stats")

ONE = torch.ones(())
LEAST_P = 1e-4
"""The seeds are fixed: a right law passes always, and a wrong one has p far below."""


def noise_on(law: NoiseModel, grey: float, complex_valued: bool = False) -> Tensor:
    """The real components of the noise on an even image."""
    clean = torch.full((1, 3, 64, 80), grey, dtype=torch.complex128 if complex_valued else torch.float64)
    n = law.sample(clean, generators([1])) - clean
    return (torch.view_as_real(n) if complex_valued else n).flatten()


@pytest.mark.parametrize("complex_valued", [False, True])
@pytest.mark.parametrize(
    ("law", "reference"),
    [
        (Laplace(0.2), lambda: stats.laplace(scale=0.2 / 2**0.5)),
        (Uniform(0.2), lambda: stats.uniform(-(3**0.5) * 0.2, 2 * 3**0.5 * 0.2)),
    ],
    ids=["laplace", "uniform"],
)
def test_draws_and_densities_of_additive_noise_are_those_of_scipy(law, reference, complex_valued):
    n = noise_on(law, 0.3, complex_valued)
    assert stats.kstest(n.numpy(), reference().cdf).pvalue > LEAST_P
    clean = random_like(torch.zeros(2, 1, 5, 6, dtype=torch.complex128 if complex_valued else torch.float64))
    y = law.sample(clean, generators((1, 2)))
    residual = torch.view_as_real(y - clean) if complex_valued else y - clean
    expected = -reference().logpdf(residual.numpy()).reshape(2, -1).sum(1)
    np.testing.assert_allclose(law.nll(y, clean, ONE).numpy(), expected, rtol=1e-12)
    assert reference().std() == pytest.approx(0.2) and (law.sigma(y, ONE) == 0.2).all()


def test_the_real_and_imaginary_parts_of_complex_noise_are_independent():
    for law in (Laplace(0.2), Uniform(0.2)):
        parts = noise_on(law, 0.0, complex_valued=True).view(-1, 2).T
        assert torch.corrcoef(parts)[0, 1].abs() <= 5.0 / parts.shape[1] ** 0.5


def test_uniform_noise_is_impossible_beyond_its_bound():
    law, clean = Uniform(0.2), torch.zeros(2, 1, 2, 2, dtype=torch.float64)
    y = clean.clone()
    y[1, 0, 1, 1] = 3**0.5 * 0.2 * 1.001
    assert law.nll(y, clean, ONE).tolist() == [pytest.approx(4 * np.log(2 * 3**0.5 * 0.2)), np.inf]
    with pytest.raises(ValueError, match="uniform noise has no gradient to follow; set noise_model=gaussian"):
        law.nll_gradient(y, clean, ONE)


def test_the_truth_stays_possible_under_uniform_noise_in_single_precision():
    """y is rounded: no value may leave the bounds for that."""
    clean = random_images(1, 3, 256, 256).float()
    assert Uniform(1e-3).nll(Uniform(1e-3).sample(clean, generators([1])), clean, ONE).isfinite().all()


@pytest.mark.parametrize("grey", [-0.9, 0.4])
def test_salt_and_pepper_noise_loses_its_share_of_the_values(grey):
    """q/2 black, q/2 white, each within five standard errors; the others are Gaussian."""
    q, sigma = 0.2, 0.05
    y = noise_on(SaltAndPepper(q, sigma), grey) + grey
    for extreme in (-1.0, 1.0):
        share = ((y - extreme).abs() < 1e-12).double().mean()
        assert abs(share - q / 2) <= 5.0 * (q / 2 / len(y)) ** 0.5
    kept = y[(y.abs() - 1.0).abs() > 1e-12]
    assert stats.kstest(kept.numpy(), stats.norm(grey, sigma).cdf).pvalue > LEAST_P


def test_the_likelihood_of_salt_and_pepper_noise_is_that_of_its_mixture():
    """Lost values have the probability q/2 whatever x0 is; the others a Gaussian density, times 1 − q."""
    q, sigma = 0.2, 0.05
    y = torch.tensor([-1.0, 1.0, 0.1, 0.3], dtype=torch.float64).view(1, 1, 2, 2)
    clean = torch.tensor([0.3, 0.3, 0.12, 0.28], dtype=torch.float64).view(1, 1, 2, 2)
    kept = stats.norm(clean[..., 1, :].numpy(), sigma).logpdf(y[..., 1, :].numpy()) + np.log(1 - q)
    law = SaltAndPepper(q, sigma)
    assert law.nll(y, clean, ONE).item() == pytest.approx(-2 * np.log(q / 2) - kept.sum(), rel=1e-12)
    assert (law.nll_gradient(y, clean, ONE)[..., 0, :] == 0.0).all()


@pytest.mark.parametrize(("peak", "sigma"), [(3.0, 0.5), (20.0, 0.05), (255.0, 0.05), (255.0, 0.002), (4000.0, 0.05)])
@pytest.mark.parametrize("grey", [-0.97, 0.0, 1.0])
def test_the_likelihood_of_poisson_gaussian_noise_is_the_sum_over_all_counts(peak, sigma, grey):
    """Against SciPy's, for readings from far below to far above what is expected."""
    law, rate = PoissonGaussian(peak, sigma), peak * (grey + 1.0) / 2.0
    spread = (sigma**2 + 2.0 * (grey + 1.0) / peak) ** 0.5
    y = torch.linspace(grey - 6 * spread, grey + 9 * spread, 16, dtype=torch.float64).view(16, 1, 1, 1)
    counts = np.arange(int(rate + 40 * rate**0.5 + 60 + 20 * peak * sigma))
    terms = stats.poisson(rate).logpmf(counts) + stats.norm(2 * counts / peak - 1, sigma).logpdf(y.numpy().reshape(-1, 1))
    top = terms.max(1, keepdims=True)
    weights = np.exp(terms - top)
    expected = -(top[:, 0] + np.log(weights.sum(1)))
    clean = torch.full_like(y, grey)
    np.testing.assert_allclose(law.nll(y, clean, ONE).numpy(), expected, rtol=1e-6, atol=2e-6)
    gradient = peak / 2 * (1 - (weights * counts).sum(1) / weights.sum(1) / rate)
    np.testing.assert_allclose(law.nll_gradient(y, clean, ONE).flatten().numpy(), gradient, rtol=1e-5, atol=1e-5 * peak)


@pytest.mark.parametrize(("peak", "sigma", "grey"), [(30.0, 0.05, -0.4), (255.0, 0.1, 0.6)])
def test_poisson_gaussian_draws_have_its_moments(peak, sigma, grey):
    """Mean 0, variance σ² + 2 (grey + 1)/peak, third moment that of the counts alone: 4 (grey + 1)/peak²."""
    n = noise_on(PoissonGaussian(peak, sigma), grey)
    variance = sigma**2 + 2 * (grey + 1) / peak
    assert n.mean().abs() <= 5.0 * (variance / len(n)) ** 0.5
    assert abs(n.var() - variance) <= 5.0 * variance * (2.5 / len(n)) ** 0.5
    assert abs(n.pow(3).mean() - 4 * (grey + 1) / peak**2) <= 5.0 * (18.0 * variance**3 / len(n)) ** 0.5
    y = (n + grey).view(1, 3, 64, 80)
    assert PoissonGaussian(peak, sigma).sigma(y, ONE).item() == pytest.approx(variance**0.5, rel=0.02)


def test_light_from_black_is_improbable_but_possible_with_read_noise():
    law, black = PoissonGaussian(100.0, 0.05), torch.full((1, 1, 1, 1), -1.0, dtype=torch.float64)
    y = black + 0.1
    assert law.nll(y, black, ONE).item() == pytest.approx(-stats.norm(-1.0, 0.05).logpdf(-0.9), rel=1e-9)
    assert law.nll_gradient(y, black - 0.2, ONE).isfinite().all() and law.nll_gradient(y, black, ONE).item() < 0.0


@pytest.mark.parametrize("law", [Laplace(0.2), SaltAndPepper(0.3, 0.2), PoissonGaussian(60.0, 0.1)], ids=lambda law: type(law).__name__)
def test_gradients_are_slopes_on_the_support(law):
    """Along d, (f(x + h d) − f(x − h d))/2h → ⟨∇f, d⟩ with missing pixels in the measurement."""
    x, x0, d = (0.8 * random_images(2, 3, 8, 10, seed=seed) for seed in range(3))
    own, h = generators((1, 2)), 1e-6
    found = Measurement.of(InpaintRandom().draw(x, own), law, x, own)
    slope = (found.nll(x0 + h * d) - found.nll(x0 - h * d)) / (2.0 * h)
    torch.testing.assert_close(slope, (found.nll_gradient(x0) * d).flatten(1).sum(1), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("law", [Laplace(0.2), Uniform(0.2), SaltAndPepper(0.3, 0.2), PoissonGaussian(60.0, 0.1)])
def test_missing_pixels_count_for_nothing(law):
    """−log p of a masked measurement is that of the known pixels alone, and so is σ_y."""
    x = 0.8 * random_images(1, 1, 12, 10)
    own = generators([1])
    found = Measurement.of(InpaintRandom(0.5).draw(x, own), law, x, own)
    known = found.operator.mask[0, 0] > 0.0
    alone = Measurement.given(Identity().draw(x, own), law, found.y[0, 0][known].view(1, 1, 1, -1))
    torch.testing.assert_close(found.nll(x), alone.noise_model.nll(alone.y, x[0, 0][known].view_as(alone.y), ONE), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.sigma_y, alone.sigma_y, rtol=1e-12, atol=0)


def test_labels_state_both_units():
    """A standard deviation in [-1, 1] is twice that in [0, 1]; of a y that is no image only its own unit is stated."""
    labels = {
        Laplace(0.1): "Laplace, sigma_y 0.1 in [-1, 1] = 0.05 in [0, 1]",
        Uniform(0.1): "uniform within ±0.173, sigma_y 0.1 in [-1, 1] = 0.05 in [0, 1]",
        SaltAndPepper(0.25, 0.1): "salt and pepper, 0.25 of the values lost, the others sigma 0.1 in [-1, 1] = 0.05 in [0, 1]",
        PoissonGaussian(
            200.0, 0.1
        ): "Poisson-Gaussian, 200 photons at white and read noise 0.1: sigma_y at mid-grey 0.141 in [-1, 1] = 0.0707 in [0, 1]",
    }
    for law, label in labels.items():
        assert law.label("[-1, 1]") == label
        assert "[0, 1]" not in law.label("k-space")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Laplace(0.0), r"got sigma=0\.0; set noise_model\.sigma"),
        (lambda: Uniform(-1.0), r"got sigma=-1\.0; set noise_model\.sigma"),
        (lambda: SaltAndPepper(1.0), r"got 1\.0; set noise_model\.probability"),
        (lambda: SaltAndPepper(0.1, -0.1), r"got sigma=-0\.1; set noise_model\.sigma"),
        (lambda: PoissonGaussian(0.0), r"got peak=0\.0; set noise_model\.peak"),
        (lambda: PoissonGaussian(255.0, 0.0), "set noise_model.sigma, or noise_model=poisson for none"),
    ],
)
def test_settings_without_a_law_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_what_needs_real_values_refuses_complex_ones():
    clean = torch.zeros(1, 1, 2, 2, dtype=torch.complex64)
    for law in (SaltAndPepper(), PoissonGaussian()):
        with pytest.raises(ValueError, match="complex; set noise_model=gaussian"):
            law.sample(clean, generators([1]))
    with pytest.raises(ValueError, match=r"sigma=0 has no density; set noise_model\.sigma=0\.05"):
        SaltAndPepper(0.1, 0.0).nll(clean.real, clean.real, ONE)
