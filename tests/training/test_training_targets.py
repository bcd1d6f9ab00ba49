"""Training targets, weightings and learning rates, compared with the formulas of the papers."""

from itertools import pairwise
from math import cos, inf, log, nan, sin
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.preconditioning import X0, Eps, Score, V
from diffusion_priors.training.optimisation import AdamW, ConstantRate, CosineDecay, LearningRate, LinearDecay
from diffusion_priors.training.weightings import MinSNR, Simple

CONF = Path(__file__).parents[2] / "conf"
WEIGHTINGS = sorted((CONF / "weighting").glob("*.yaml"))
RATES = sorted((CONF / "lr_schedule").glob("*.yaml"))
KINDS = [Eps, X0, V, Score]

LEVELS = {  # (alpha, sigma) of three images
    "vp": [(cos(angle), sin(angle)) for angle in (0.01, 0.8, 1.56)],
    "ve": [(1.0, sigma) for sigma in (0.02, 1.3, 80.0)],
    "flow": [(1.0 - t, t) for t in (0.001, 0.5, 0.99)],
    "bytes": [(0.9, 3.0), (0.3, 127.0), (1.7, 0.4)],
}

TARGETS = {  # the output that the network should give, and the factor of its error
    "eps": (lambda a, s, x0, z: z, lambda a, s: 1.0),  # Ho et al. 2020, Eq. 14
    "x0": (lambda a, s, x0, z: x0, lambda a, s: 1.0),
    "v": (lambda a, s, x0, z: a * z - s * x0, lambda a, s: 1.0),  # Salimans & Ho 2022, App. D
    "score": (lambda a, s, x0, z: -(a * x0 + s * z - a * x0) / s**2, lambda a, s: s),  # ∇ log q(x_t | x0), λ = σ²
}


def images(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 2, 4, 5, dtype=torch.float64, generator=generator) for _ in range(count)]


def batch_level(pairs: list[tuple[float, float]]) -> NoiseLevel:
    alpha, sigma = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1) for values in zip(*pairs, strict=True))
    return NoiseLevel(torch.arange(len(pairs)), alpha, sigma)


def per_image(values: float | torch.Tensor) -> np.ndarray:
    return np.broadcast_to(np.asarray(values, dtype=np.float64).reshape(-1), 3)


# Preconditionings


@pytest.mark.parametrize("pairs", LEVELS.values(), ids=LEVELS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_error_is_the_output_minus_the_target(kind, pairs):
    x0, z, output = images(3)
    error = kind().error(output, x0, z, batch_level(pairs)).numpy()
    target, factor = TARGETS[kind.name]
    for b, (a, s) in enumerate(pairs):
        wanted = target(a, s, x0[b].numpy(), z[b].numpy())
        np.testing.assert_allclose(
            error[b], factor(a, s) * (output[b].numpy() - wanted), rtol=1e-9, atol=1e-12 * factor(a, s) * abs(wanted).max()
        )


@pytest.mark.parametrize("pairs", LEVELS.values(), ids=LEVELS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_exact_output_has_error_zero(kind, pairs):
    x0, z = images(2)
    level, target = batch_level(pairs), TARGETS[kind.name][0]
    exact = torch.stack([target(a, s, x0[b], z[b]) for b, (a, s) in enumerate(pairs)])
    assert kind().error(exact, x0, z, level).abs().max() < 1e-11
    torch.testing.assert_close(kind().x0(level.diffuse(x0, z), exact, level), x0, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("pairs", LEVELS.values(), ids=LEVELS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_gain_relates_the_error_to_the_difference_in_x0(kind, pairs):
    """error² = gain · (x̂0 − x0)², pixel by pixel, for any output."""
    x0, z, output = images(3)
    level = batch_level(pairs)
    difference = kind().x0(level.diffuse(x0, z), output, level) - x0
    error, gain = kind().error(output, x0, z, level), kind().gain(level)
    torch.testing.assert_close(error**2, gain * difference**2, rtol=1e-7, atol=1e-11)
    assert (per_image(gain) > 0).all()


@pytest.mark.parametrize("pairs", LEVELS.values(), ids=LEVELS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_levels_equals_each_image_at_its_level(kind, pairs):
    x0, z, output = images(3)
    error, gain = kind().error(output, x0, z, batch_level(pairs)), per_image(kind().gain(batch_level(pairs)))
    for b, (a, s) in enumerate(pairs):
        level, one = NoiseLevel(b, a, s), slice(b, b + 1)
        torch.testing.assert_close(kind().error(output[one], x0[one], z[one], level), error[one], rtol=1e-14, atol=1e-14)
        assert kind().gain(level) == pytest.approx(gain[b], rel=1e-14)


@pytest.mark.parametrize("pair", [(cos(0.5), sin(0.5)), (0.7, 2.0)], ids=["vp", "other"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_best_output_gives_the_posterior_mean(kind, pair):
    """x0 ~ N(0, c²): of all outputs k · x_t the one with the least mean squared error gives E[x0 | x_t] = a c²/(a²c² + s²) x_t."""
    (a, s), c = pair, 0.6
    level, generator = NoiseLevel(0, a, s), torch.Generator().manual_seed(1)
    x0, z = torch.randn(2, 1, 1, 400, 500, dtype=torch.float64, generator=generator) * torch.tensor([c, 1.0]).view(2, 1, 1, 1, 1)
    x = a * x0 + s * z
    # the error is linear in k: its least squares solution
    constant = kind().error(torch.zeros_like(x), x0, z, level)
    slope = kind().error(x, x0, z, level) - constant
    k = -(constant * slope).mean() / (slope**2).mean()
    mean = kind().x0(torch.ones(1, 1, 1, 1, dtype=torch.float64), k.view(1, 1, 1, 1), level).item()
    assert mean == pytest.approx(a * c**2 / (a**2 * c**2 + s**2), rel=0.02)


# Weightings


@pytest.mark.parametrize(("gamma", "floor"), [(0.3, 0.0), (1.0, 0.0), (5.0, 0.0), (1e9, 0.0), (5.0, 0.05), (0.3, 0.3), (inf, 1.0)])
@pytest.mark.parametrize("pairs", LEVELS.values(), ids=LEVELS)
@pytest.mark.parametrize("kind", KINDS)
def test_min_snr_gives_every_preconditioning_the_same_loss(kind, pairs, gamma, floor):
    """w ‖error‖² = min(max(α²/σ², floor), γ) ‖x̂0 − x0‖²."""
    x0, z, output = images(3)
    level = batch_level(pairs)
    difference = kind().x0(level.diffuse(x0, z), output, level) - x0
    loss = (MinSNR(gamma, floor)(level, kind()) * kind().error(output, x0, z, level) ** 2).sum((1, 2, 3))
    for b, (a, s) in enumerate(pairs):
        weight = min(max((a / s) ** 2, floor), gamma)
        assert loss[b].item() == pytest.approx(weight * (difference[b] ** 2).sum().item(), rel=1e-7)


@pytest.mark.parametrize(
    ("kind", "closed"),
    [(Eps, lambda snr: min(snr, 5) / snr), (X0, lambda snr: min(snr, 5)), (V, lambda snr: min(snr, 5) / (snr + 1))],
    ids=["eps", "x0", "v"],
)
def test_min_snr_equals_the_weights_of_the_paper(kind, closed):
    """Hang et al. 2023, Sec. 3.4 and App.: for α² + σ² = 1, with the γ = 5 that they advise, which is the default."""
    found = per_image(MinSNR()(batch_level(LEVELS["vp"]), kind()))
    for weight, (a, s) in zip(found, LEVELS["vp"], strict=True):
        assert weight == pytest.approx(closed(a**2 / s**2), rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_simple_weights_every_error_equally(kind):
    assert (per_image(Simple()(batch_level(LEVELS["bytes"]), kind())) == 1).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("yaml", WEIGHTINGS, ids=lambda path: path.stem)
def test_weights_are_positive_and_independent_between_images(yaml, kind):
    weighting = instantiate(OmegaConf.load(yaml))
    together = weighting(batch_level(LEVELS["vp"]), kind())
    assert together.shape == (3, 1, 1, 1) and (together > 0).all() and torch.isfinite(together).all()
    for b, pair in enumerate(LEVELS["vp"]):
        torch.testing.assert_close(weighting(batch_level([pair]), kind()), together[b : b + 1], rtol=1e-14, atol=0)


@pytest.mark.parametrize("gamma", [0.0, -1.0, nan])
def test_a_gamma_that_is_not_positive_is_refused(gamma):
    with pytest.raises(ValueError, match=r"^gamma must be positive, got .*; set weighting\.gamma$"):
        MinSNR(gamma)


@pytest.mark.parametrize("floor", [-0.1, 5.1, nan])
def test_a_floor_outside_zero_to_gamma_is_refused(floor):
    with pytest.raises(ValueError, match=r"^floor must be between 0 and gamma = 5.0, got .*; set weighting\.floor$"):
        MinSNR(5.0, floor)


# The learning rate


def factors(rate: LearningRate, total: int) -> np.ndarray:
    return np.array([rate(step, total) for step in range(total)])


def by_torch(make, total: int) -> np.ndarray:
    """The factors of one of torch's own schedules, step by step."""
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, found = make(optimiser, total), []
    for _ in range(total):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return np.array(found)


@pytest.mark.parametrize("warmup", [0, 1, 7, 100])
def test_the_warm_up_is_linear_and_ends_at_one(warmup):
    """It is 0 one step before the first, so that every step has an effect, and 1 at step `warmup`."""
    expected = np.interp(np.arange(300), [-1, warmup], [0.0, 1.0])
    np.testing.assert_allclose(factors(ConstantRate(warmup), 300), expected, rtol=1e-12)
    for decaying in (CosineDecay, LinearDecay):
        np.testing.assert_allclose(factors(decaying(warmup), 300), expected * factors(decaying(0), 300), rtol=1e-12)


def test_constant_is_one():
    assert (factors(ConstantRate(0), 50) == 1).all()


@pytest.mark.parametrize("total", [1, 2, 10, 97])
def test_cosine_equals_torch(total):
    theirs = by_torch(torch.optim.lr_scheduler.CosineAnnealingLR, total)
    np.testing.assert_allclose(factors(CosineDecay(0), total), theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("total", [1, 2, 10, 97])
def test_linear_equals_torch(total):
    theirs = by_torch(lambda optimiser, total: torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total), total)
    np.testing.assert_allclose(factors(LinearDecay(0), total), theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("last", [0.1, 0.25, 0.5, 1.0])
def test_linear_falls_only_over_the_last_part(last):
    total = 200
    expected = np.interp(np.arange(total), [(1 - last) * total, total], [1.0, 0.0])
    np.testing.assert_allclose(factors(LinearDecay(0, last), total), expected, rtol=1e-9, atol=1e-12)
    assert factors(LinearDecay(0, last), total)[-1] == pytest.approx(1 / (last * total))


def test_a_longer_run_with_a_short_last_part_starts_like_the_shorter_run():
    short, long = factors(LinearDecay(10, 0.2), 100), factors(LinearDecay(10, 0.2), 1000)
    assert np.array_equal(short[:80], long[:80]) and short[90] < long[90] == 1


@pytest.mark.parametrize("total", [1, 5, 100, 1000])
@pytest.mark.parametrize("yaml", RATES, ids=lambda path: path.stem)
def test_the_factor_is_above_zero_and_never_above_one_within_a_run(yaml, total):
    found = factors(instantiate(OmegaConf.load(yaml)), total)
    assert (found > 0).all() and (found <= 1).all()


@pytest.mark.parametrize("rate", [CosineDecay(0), LinearDecay(0), LinearDecay(0, 0.3)], ids=["cosine", "linear", "last"])
def test_a_decaying_rate_falls_to_zero_and_stays_there(rate):
    found = factors(rate, 1000)
    assert all(now >= then for now, then in pairwise(found)) and found[-1] < 0.004
    assert rate(1000, 1000) == rate(1001, 1000) == rate(5000, 1000) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *[(lambda kind=kind: kind(-1), "warm-up .* -1; set lr_schedule.warmup") for kind in (ConstantRate, CosineDecay, LinearDecay)],
        *[(lambda last=last: LinearDecay(0, last), rf"got {last}; set lr_schedule\.last") for last in (0.0, -0.1, 1.01, nan)],
        *[(lambda lr=lr: AdamW(lr), rf"learning rate must be positive, got {lr}; set optimiser\.lr") for lr in (0.0, -1e-4, nan)],
        *[
            (lambda betas=betas: AdamW(betas=betas), r"betas .*; set optimiser\.betas")
            for betas in ((1.0, 0.9), (0.9, 1.0), (-0.1, 0.9), (0.9, nan))
        ],
    ],
)
def test_values_out_of_bounds_are_refused_in_one_line_that_says_what_to_set(make, message):
    with pytest.raises(ValueError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw_equals_the_algorithm_of_the_paper(decay):
    """Loshchilov & Hutter 2019, Alg. 2, in NumPy, with torch's ε of 1e-8; parameters without a gradient do not change."""
    start, frozen = np.array([1.0, -2.0, 0.5]), torch.ones(2)
    parameter, still = nn.Parameter(torch.tensor(start)), nn.Parameter(frozen.clone(), requires_grad=False)
    optimiser = AdamW(0.01, (0.8, 0.95), decay)([parameter, still])
    theta, m, v = start, np.zeros(3), np.zeros(3)
    for t in range(1, 6):
        g = np.array([sin(t), 1.0, log(t + 1)])
        parameter.grad = torch.tensor(g)
        optimiser.step()
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
        step = (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8)
        theta = theta - 0.01 * step - 0.01 * decay * theta
        np.testing.assert_allclose(parameter.detach().numpy(), theta, rtol=1e-9)
    assert torch.equal(still, frozen)


def test_an_infinite_gamma_gives_the_unweighted_eps_loss():
    """γ → ∞ leaves SNR, so that the loss is ‖ε̂ − ε‖² for every preconditioning where α² + σ² = 1."""
    weights = [per_image(MinSNR(inf)(batch_level(LEVELS["vp"]), kind())) for kind in (Eps, Score)]
    np.testing.assert_allclose(weights, 1.0, rtol=1e-12)
