"""The bound that trains the learned variance, compared with numerically integrated Gaussians and the official formula."""

from math import log, log2

import numpy as np
import pytest
import torch
from lazy import Lazy

from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.schedules import Betas, Cosine, Linear
from diffusion_priors.training.variance_bound import VarianceBound

stats = Lazy("scipy.stats")

SCHEDULES = {"linear": Linear(), "cosine": Cosine(), "short": Linear(50, 0.01, 0.4)}
PIXELS = np.arange(256) / 127.5 - 1.0


def tables(schedule: Betas) -> dict[str, np.ndarray]:
    """Ho et al. 2020, Eq. 4 and 7, from the betas, with the official code's log β̃, which uses t = 1 in place of t = 0."""
    beta = np.array(schedule.betas, dtype=np.float64)
    bar = np.cumprod(1 - beta)
    before = np.concatenate([[1.0], bar[:-1]])
    small = beta * (1 - before) / (1 - bar)
    return {
        "beta": beta,
        "bar": bar,
        "small": np.concatenate([small[1:2], small[1:]]),
        "of_x0": np.sqrt(before) * beta / (1 - bar),
        "of_xt": np.sqrt(1 - beta) * (1 - before) / (1 - bar),
    }


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def bits(bound: VarianceBound, x0, x0_hat, fraction, t: int) -> np.ndarray:
    """The bound of single pixels; the arguments are broadcast."""
    parts = np.broadcast_arrays(*(np.asarray(part, dtype=np.float64) for part in (x0, x0_hat, fraction)))
    flat = [torch.from_numpy(part.reshape(-1, 1, 1, 1).copy()) for part in parts]
    return bound(*flat, torch.full((flat[0].shape[0],), t)).numpy().reshape(parts[0].shape)


def divergence(mean_q: float, var_q: float, mean_p: float, var_p: float) -> float:
    """∫ q log₂(q/p), summed over a fine grid of ± 14 standard deviations of q."""
    x, step = np.linspace(mean_q - 14 * var_q**0.5, mean_q + 14 * var_q**0.5, 20001, retstep=True)
    q, p = stats.norm(mean_q, var_q**0.5), stats.norm(mean_p, var_p**0.5)
    return float((q.pdf(x) * (q.logpdf(x) - p.logpdf(x))).sum() * step / log(2))


# The divergence, t > 0


@pytest.mark.parametrize(
    ("name", "t"), [(name, t) for name in SCHEDULES for t in (1, 2, 20, 49, 500, 999) if t < len(SCHEDULES[name].betas)]
)
def test_the_divergence_equals_that_of_the_two_gaussians(name, t):
    known, bound = tables(SCHEDULES[name]), VarianceBound(SCHEDULES[name].table)
    for x0, x0_hat, x_t, fraction in (
        (0.3, 0.3, 0.1, 0.4),
        (-0.9, 0.7, 1.3, 0.0),
        (0.5, 0.4, -0.2, 1.0),
        (0.0, 1.0, 0.0, 0.55),
        (1.0, 0.9, 3.0, -0.2),
    ):
        q_mean, p_mean = (known["of_x0"][t] * clean + known["of_xt"][t] * x_t for clean in (x0, x0_hat))
        variance = known["beta"][t] ** fraction * known["small"][t] ** (1 - fraction)
        exact = divergence(q_mean, known["small"][t], p_mean, variance)
        assert bits(bound, x0, x0_hat, fraction, t) == pytest.approx(exact, rel=1e-4, abs=2e-6)


GENERAL = [NoiseLevel(0, 0.95, 0.2), NoiseLevel(1, 0.9, 0.7), NoiseLevel(2, 0.5, 1.1), NoiseLevel(3, 0.5, 30.0)]


@pytest.mark.parametrize("t", [1, 2, 3])
def test_the_bound_holds_for_schedules_that_do_not_preserve_the_variance(t):
    """(x_s, x_t) given x0 are jointly Gaussian: conditioning on x_t gives q, whatever α² + σ² is."""
    now, then, bound = GENERAL[t], GENERAL[t - 1], VarianceBound(GENERAL)
    ratio = now.alpha / then.alpha
    beta = now.sigma**2 - ratio**2 * then.sigma**2
    slope = ratio * then.sigma**2 / now.sigma**2
    small = then.sigma**2 - slope * ratio * then.sigma**2

    def mean(x0: float, x_t: float) -> float:
        return then.alpha * x0 + slope * (x_t - now.alpha * x0)

    for x0, x0_hat, fraction in ((0.2, 0.2, 0.7), (-1.0, 0.5, 0.3), (0.4, 0.5, 1.0)):
        exact = divergence(mean(x0, 0.3), small, mean(x0_hat, 0.3), beta**fraction * small ** (1 - fraction))
        assert bits(bound, x0, x0_hat, fraction, t) == pytest.approx(exact, rel=1e-4, abs=2e-6)


@pytest.mark.parametrize("t", [1, 10, 300, 999])
def test_the_divergence_is_zero_only_at_the_true_posterior(t):
    """It is 0 for x̂0 = x0 and f = 0, the posterior variance, and larger for every other fraction."""
    bound, fractions = VarianceBound(SCHEDULES["cosine"].table), np.linspace(-1, 2, 61)
    found = bits(bound, 0.4, 0.4, fractions, t)
    assert abs(found[20]) < 1e-6 and fractions[20] == pytest.approx(0)
    assert found.min() > -1e-6 and found.argmin() in (range(18, 23) if t > 10 else [20])
    small, beta = (tables(SCHEDULES["cosine"])[key][t] for key in ("small", "beta"))
    wide = log(beta / small)
    np.testing.assert_allclose(found, 0.5 * (fractions * wide - 1 + np.exp(-fractions * wide)) / log(2), atol=2e-6)


@pytest.mark.parametrize("t", [1, 5, 100])
def test_the_best_variance_is_the_posterior_variance_plus_the_squared_error_of_the_mean(t):
    """min over τ² of KL(N(μ, β̃) ‖ N(μ̂, τ²)) is at τ² = β̃ + (μ̂ − μ)²: there the fraction's gradient vanishes."""
    known, bound = tables(SCHEDULES["linear"]), VarianceBound(SCHEDULES["linear"].table).double()
    small, beta, difference = known["small"][t], known["beta"][t], 0.03
    best = log(1 + (known["of_x0"][t] * difference) ** 2 / small) / log(beta / small)
    slopes = []
    for f in (best, best - 0.1, best + 0.1):
        fraction = torch.full((1, 1, 1, 1), f, dtype=torch.float64, requires_grad=True)
        loss = bound(torch.zeros_like(fraction), torch.full_like(fraction, difference), fraction, torch.tensor([t]))
        slopes.append(torch.autograd.grad(loss.sum(), fraction)[0].item())
    assert slopes[1] < 0 < slopes[2] and abs(slopes[0]) < 1e-4 * min(slopes[2], -slopes[1])


# The last step, t = 0


@pytest.mark.parametrize("fraction", [-0.3, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_last_step_is_a_gaussian_in_bins_of_eight_bits(name, fraction):
    """−log₂ of the mass of N(x̂0, τ²) between the two edges of the pixel. The first and last bin extend to infinity."""
    known, bound = tables(SCHEDULES[name]), VarianceBound(SCHEDULES[name].table)
    std = (known["beta"][0] ** fraction * known["small"][0] ** (1 - fraction)) ** 0.5
    for x0_hat in (-1.02, -1.0, -0.996, -0.31, 0.0, 0.5, 0.998, 1.0, 1.1):
        edges = np.concatenate([[-np.inf], (PIXELS[1:] + PIXELS[:-1]) / 2, [np.inf]])
        mass = np.diff(stats.norm.cdf(edges, x0_hat, std))
        found = bits(bound, PIXELS, x0_hat, fraction, 0)
        likely = mass > 1e-6
        np.testing.assert_allclose(found[likely], -np.log2(mass[likely]), rtol=1e-4, atol=1e-4)
        assert (found[~likely] > -log2(2e-6)).all() and found.max() <= -log2(1e-12) + 1e-4
        assert np.exp2(-found).sum() == pytest.approx(1, abs=1e-4)


def test_a_schedule_of_one_level_uses_beta_for_every_fraction():
    """β̃ is zero and there is no second one to replace it."""
    bound = VarianceBound(Betas([0.01]).table)
    exact = -np.log2(stats.norm.cdf(0.05 + 1 / 255, 0, 0.1) - stats.norm.cdf(0.05 - 1 / 255, 0, 0.1))
    np.testing.assert_allclose(bits(bound, 0.05, 0.0, np.array([0.0, 0.5, 1.0]), 0), exact, rtol=1e-5)


# Units


@pytest.mark.parametrize(("scale", "shift"), [(0.5, 0.5), (127.5, 127.5), (1.0, -3.0), (1.25, 0.75)])
def test_the_bound_does_not_depend_on_the_pixel_unit(scale, shift):
    """The same image and noise in other units cost equally many bits, in inner and outermost bins."""
    levels = SCHEDULES["short"].table
    others = [NoiseLevel(level.t, level.alpha, level.sigma * scale) for level in levels]
    x0 = torch.from_numpy(PIXELS).view(1, 1, 16, 16).repeat(4, 1, 1, 1)
    x0_hat, fraction, index = x0 + 0.05 * draw(4, 1, 16, 16), draw(4, 1, 16, 16, seed=1).sigmoid(), torch.tensor([0, 1, 20, 49])
    plain = VarianceBound(levels).double()(x0, x0_hat, fraction, index)
    moved = VarianceBound(others, scale, shift).double()(scale * x0 + shift, scale * x0_hat + shift, fraction, index)
    torch.testing.assert_close(moved, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("scale", "shift"), [(0.5, 0.5), (127.5, 127.5)])
def test_the_bins_of_another_unit_partition_the_line(scale, shift):
    levels = [NoiseLevel(t, level.alpha, level.sigma * scale) for t, level in enumerate(SCHEDULES["short"].table)]
    for x0_hat in (-1.0, 0.2, 0.999):
        found = bits(VarianceBound(levels, scale, shift), scale * PIXELS + shift, scale * x0_hat + shift, 0.5, 0)
        assert np.exp2(-found).sum() == pytest.approx(1, abs=1e-4)


# Images


def test_a_batch_equals_the_improved_diffusion_code():
    """`_vb_terms_bpd` with learned range, clip_denoised=False and x̂0 from ε̂, in NumPy; the normal cdf is exact, not tanh."""
    schedule, t = SCHEDULES["linear"], np.array([0, 1, 7, 400, 999])
    known = {key: table[t].reshape(-1, 1, 1, 1) for key, table in tables(schedule).items()}
    rng = np.random.default_rng(0)
    x0 = PIXELS[rng.integers(0, 256, (5, 3, 8, 8))]
    x0[:, 0, 0], x0[:, 1, 1] = -1, 1
    noise, eps_error, v = rng.normal(size=x0.shape), 0.1 * rng.normal(size=x0.shape), rng.uniform(-1, 1, x0.shape)

    x_t = np.sqrt(known["bar"]) * x0 + np.sqrt(1 - known["bar"]) * noise
    eps = noise + eps_error
    x0_hat = np.sqrt(1 / known["bar"]) * x_t - np.sqrt(1 / known["bar"] - 1) * eps
    true_mean, mean = (known["of_x0"] * clean + known["of_xt"] * x_t for clean in (x0, x0_hat))
    frac = (v + 1) / 2
    log_variance = frac * np.log(known["beta"]) + (1 - frac) * np.log(known["small"])
    log_true = np.log(known["small"])
    kl = 0.5 * (-1.0 + log_variance - log_true + np.exp(log_true - log_variance) + (true_mean - mean) ** 2 * np.exp(-log_variance))
    centred, inv_std = x0 - mean, np.exp(-0.5 * log_variance)
    cdf_plus, cdf_min = stats.norm.cdf(inv_std * (centred + 1 / 255)), stats.norm.cdf(inv_std * (centred - 1 / 255))
    log_probs = np.where(x0 < -0.999, cdf_plus, np.where(x0 > 0.999, 1 - cdf_min, cdf_plus - cdf_min))
    nll = -np.log(log_probs.clip(1e-12))
    official = np.where((t == 0)[:, None], nll.reshape(5, -1), kl.reshape(5, -1)).mean(axis=1) / np.log(2.0)

    found = VarianceBound(schedule.table).double()(*map(torch.from_numpy, (x0, x0_hat, frac, t)))
    np.testing.assert_allclose(found.numpy(), official, rtol=2e-5, atol=1e-6)


def test_single_precision_gives_the_same_bound():
    """As in training, with float32 images: within a thousandth of the bound in double precision."""
    levels = SCHEDULES["linear"].table
    x0 = torch.from_numpy(PIXELS).view(1, 1, 16, 16).repeat(5, 1, 1, 1)
    x0_hat, fraction, index = x0 + 0.006 * draw(5, 1, 16, 16), draw(5, 1, 16, 16, seed=1).sigmoid(), torch.tensor([0, 1, 2, 500, 999])
    exact = VarianceBound(levels).double()(x0, x0_hat, fraction, index)
    single = VarianceBound(levels)(x0.float(), x0_hat.float(), fraction.float(), index)
    torch.testing.assert_close(single.double(), exact, rtol=1e-3, atol=1e-5)


def test_the_bound_of_an_image_does_not_depend_on_its_batch():
    bound, index = VarianceBound(SCHEDULES["linear"].table), torch.tensor([0, 3, 0, 700])
    x0 = draw(4, 2, 4, 4).clamp(-1, 1)
    x0_hat, fraction = x0 + 0.1 * draw(4, 2, 4, 4, seed=1), draw(4, 2, 4, 4, seed=2)
    together = bound(x0, x0_hat, fraction, index)
    for b in range(4):
        one = slice(b, b + 1)
        torch.testing.assert_close(bound(x0[one], x0_hat[one], fraction[one], index[one]), together[one], rtol=1e-12, atol=0)
        pixels = [bits(bound, x0[b, ..., i], x0_hat[b, ..., i], fraction[b, ..., i], int(index[b])).mean() for i in range(4)]
        assert np.mean(pixels) == pytest.approx(together[b].item(), rel=1e-12)


def test_the_bound_of_the_negative_image_is_the_same():
    """x → −x, edge bins included."""
    bound, index = VarianceBound(SCHEDULES["linear"].table).double(), torch.tensor([0, 1, 500])
    x0 = torch.from_numpy(PIXELS).view(1, 1, 16, 16).repeat(3, 1, 1, 1)
    x0_hat, fraction = x0 + 0.02 * draw(3, 1, 16, 16), draw(3, 1, 16, 16, seed=1).sigmoid()
    torch.testing.assert_close(bound(-x0, -x0_hat, fraction, index), bound(x0, x0_hat, fraction, index), rtol=1e-6, atol=1e-9)


def test_a_checkpoint_contains_nothing_of_the_bound():
    assert not VarianceBound(SCHEDULES["short"].table, 0.5, 0.5).state_dict()


# Gradients


@pytest.mark.parametrize("t", [0, 1, 40, 999])
def test_the_bound_trains_only_the_variance(t):
    """No gradient reaches x̂0. That of the fraction equals finite differences, and is finite even for an x̂0 far off."""
    bound = VarianceBound(SCHEDULES["linear"].table).double()
    x0 = draw(1, 1, 3, 3).clamp(-1, 1)
    x0_hat, index = (x0 + 0.01 * draw(1, 1, 3, 3, seed=1)).requires_grad_(), torch.tensor([t])
    fraction = draw(1, 1, 3, 3, seed=2).sigmoid().requires_grad_()
    bound(x0, x0_hat, fraction, index).sum().backward()
    assert x0_hat.grad is None or not x0_hat.grad.any()
    assert (fraction.grad != 0).all()
    assert torch.autograd.gradcheck(lambda f: bound(x0, x0_hat.detach(), f, index), fraction, atol=1e-6, rtol=1e-4)
    far = fraction.detach().clone().requires_grad_()
    bound(x0, x0 + 3.0, far, index).sum().backward()
    assert torch.isfinite(far.grad).all()
