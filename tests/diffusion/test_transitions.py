"""Transitions: the papers' formulas written again in numpy, diffusers along whole runs, and the forward process itself."""

from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from diffusion_priors.diffusion.denoiser import Denoised
from diffusion_priors.diffusion.grids import Leading, Linspace
from diffusion_priors.diffusion.image_random import ImageRandom, image_generator
from diffusion_priors.diffusion.levels import CLEAN, NoiseLevel
from diffusion_priors.diffusion.preconditioning import Eps
from diffusion_priors.diffusion.schedules import Cosine, Linear
from diffusion_priors.diffusion.transitions import DDIM, FixedLarge, FixedSmall, LearnedRange, Renoise, posterior_variance, step_variance

SAMPLERS = Path(__file__).parents[2] / "conf" / "sampler"
YAMLS = [path for path in sorted(SAMPLERS.glob("*.yaml")) if "transitions" in path.read_text()]
LINEAR, COSINE = Linear().table, Cosine().table
PAIRS = [
    (LINEAR[1], LINEAR[0]),
    (LINEAR[500], LINEAR[499]),
    (LINEAR[999], LINEAR[998]),
    (LINEAR[999], LINEAR[0]),
    (LINEAR[650], LINEAR[333]),
    (COSINE[999], COSINE[998]),
    (COSINE[40], COSINE[20]),
]
GENERAL = {  # (now, then) with α² + σ² ≠ 1
    "ve": (NoiseLevel(2, 1.0, 9.0), NoiseLevel(1, 1.0, 0.4)),
    "flow": (NoiseLevel(0.9, 0.1, 0.9), NoiseLevel(0.6, 0.4, 0.6)),
    "flow-from-noise": (NoiseLevel(1.0, 0.0, 1.0), NoiseLevel(0.8, 0.2, 0.8)),
    "other-pixels": (NoiseLevel(700, 0.2, 0.98 / 127.5), NoiseLevel(600, 0.5, 0.866 / 127.5)),
    "vp": (LINEAR[800], LINEAR[750]),
}


class Given:
    """Noise that was drawn beforehand, one tensor a step."""

    def __init__(self, *draws: torch.Tensor) -> None:
        self.draws = list(draws)

    def normal(self, like: torch.Tensor) -> torch.Tensor:
        return self.draws.pop(0)


def randn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*(shape or (2, 3, 4, 4)), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def move(transition, x, x0, now, then, rng, fraction=None) -> torch.Tensor:
    """The transition's step from an estimate x0 with this variance fraction."""
    return transition.step(Denoised(x0, fraction), None, x, now, then, rng, None)[0]


# The papers' formulas, in ᾱ_t and ᾱ_s; β is the beta of the grid walked


def posterior(x, x0, bar_t, bar_s):
    """μ̃ and β̃ (Ho et al. 2020, Eq. 7), and β."""
    beta = 1 - bar_t / bar_s
    mean = np.sqrt(bar_s) * beta / (1 - bar_t) * x0 + np.sqrt(1 - beta) * (1 - bar_s) / (1 - bar_t) * x
    return mean, (1 - bar_s) / (1 - bar_t) * beta, beta


def fixed_small(x, x0, z, bar_t, bar_s, v):
    mean, small, _ = posterior(x, x0, bar_t, bar_s)
    return mean + np.sqrt(small) * z


def fixed_large(x, x0, z, bar_t, bar_s, v):
    mean, _, beta = posterior(x, x0, bar_t, bar_s)
    return mean + np.sqrt(beta) * z


def learned_range(x, x0, z, bar_t, bar_s, v):
    """Σ = exp(f log β + (1 − f) log β̃) (Nichol & Dhariwal 2021, Eq. 15), f = (v + 1)/2."""
    mean, small, beta = posterior(x, x0, bar_t, bar_s)
    f = (v + 1) / 2
    return mean + np.exp(0.5 * (f * np.log(beta) + (1 - f) * np.log(small))) * z


def ddim(x, x0, z, bar_t, bar_s, v, eta=0.0):
    """Song et al. 2021, Eq. 12 with the σ of Eq. 16."""
    sigma = eta * np.sqrt((1 - bar_s) / (1 - bar_t)) * np.sqrt(1 - bar_t / bar_s)
    eps = (x - np.sqrt(bar_t) * x0) / np.sqrt(1 - bar_t)
    return np.sqrt(bar_s) * x0 + np.sqrt(1 - bar_s - sigma**2) * eps + sigma * z


def renoise(x, x0, z, bar_t, bar_s, v, zeta=0.3):
    eps = (x - np.sqrt(bar_t) * x0) / np.sqrt(1 - bar_t)
    return np.sqrt(bar_s) * x0 + np.sqrt(1 - bar_s) * (np.sqrt(1 - zeta) * eps + np.sqrt(zeta) * z)


FORMULAS = {"renoise": renoise, "ddpm": fixed_small, "ddpm_large": fixed_large, "ddpm_learned": learned_range, "ddim": ddim}
FORMULAS["ddim_stochastic"] = partial(ddim, eta=0.85)


@pytest.fixture(params=YAMLS, ids=lambda path: path.stem)
def yaml(request):
    return request.param


def load(yaml: Path):
    return instantiate(OmegaConf.load(yaml))


@pytest.mark.parametrize("pair", PAIRS, ids=[f"{now.t}-{then.t}" for now, then in PAIRS])
def test_one_step_is_the_paper_s(yaml, pair):
    now, then = pair
    x, x0, z, v = randn(0), randn(1).clamp(-1, 1), randn(2), 1.2 * randn(3)
    moved = move(load(yaml), x, x0, now, then, Given(z), (v + 1) / 2)
    expected = FORMULAS[yaml.stem](x.numpy(), x0.numpy(), z.numpy(), now.alpha**2, then.alpha**2, v.numpy())
    np.testing.assert_allclose(moved.numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("pair", PAIRS, ids=[f"{now.t}-{then.t}" for now, then in PAIRS])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_is_the_paper_s_at_every_eta(eta, pair):
    now, then = pair
    x, x0, z = randn(0), randn(1).clamp(-1, 1), randn(2)
    expected = ddim(x.numpy(), x0.numpy(), z.numpy(), now.alpha**2, then.alpha**2, None, eta)
    np.testing.assert_allclose(move(DDIM(eta), x, x0, now, then, Given(z)).numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("pair", [*PAIRS, *GENERAL.values()], ids=[*(f"{n.t}-{s.t}" for n, s in PAIRS), *GENERAL])
def test_ddim_at_eta_one_is_the_posterior(pair):
    x, x0, z = randn(0), randn(1), randn(2)
    torch.testing.assert_close(move(DDIM(1.0), x, x0, *pair, Given(z)), move(FixedSmall(), x, x0, *pair, Given(z)), rtol=0, atol=0)


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_learned_range_ends_are_the_fixed_ones(end):
    x, x0, z = randn(0), randn(1), randn(2)
    now, then = LINEAR[300], LINEAR[200]
    fixed = FixedLarge() if end else FixedSmall()
    learned = move(LearnedRange(), x, x0, now, then, Given(z), torch.full_like(x, end))
    torch.testing.assert_close(learned, move(fixed, x, x0, now, then, Given(z)), rtol=1e-12, atol=1e-12)


# The forward process


@pytest.mark.parametrize("pair", GENERAL.values(), ids=GENERAL)
@pytest.mark.parametrize("transition", [FixedSmall(), DDIM(0.0), DDIM(0.3), DDIM(1.0)], ids=["fixed_small", "ddim0", "ddim.3", "ddim1"])
def test_a_step_with_the_true_x0_lands_on_the_next_level(transition, pair):
    """x_t = a_t x0 + σ_t ε moves to x_s with mean a_s x0 and variance σ_s²: Gaussian, so the three coefficients say it all."""
    now, then = pair

    def coefficient(x: float, x0: float, z: float) -> float:
        tensor = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        return move(transition, x * tensor, x0 * tensor, now, then, Given(z * tensor)).item()

    of_x0 = coefficient(now.alpha, 1.0, 0.0)
    of_eps = coefficient(now.sigma, 0.0, 0.0)
    of_z = coefficient(0.0, 0.0, 1.0)
    assert of_x0 == pytest.approx(then.alpha, rel=1e-12)
    assert of_eps**2 + of_z**2 == pytest.approx(then.sigma**2, rel=1e-12)


@pytest.mark.parametrize("pair", GENERAL.values(), ids=GENERAL)
def test_the_larger_variances_keep_the_mean(pair):
    """With the true x0 the mean over z is a_s x0 plus DDPM's share of ε, whatever τ."""
    now, then = pair
    x0, eps, nothing = randn(0), randn(1), torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    x = now.diffuse(x0, eps)
    expected = move(FixedSmall(), x, x0, now, then, Given(nothing))
    for transition in (FixedLarge(), LearnedRange()):
        torch.testing.assert_close(move(transition, x, x0, now, then, Given(nothing), randn(2)), expected, rtol=0, atol=0)


@pytest.mark.parametrize("pair", GENERAL.values(), ids=GENERAL)
def test_the_two_variances_are_those_of_the_gaussian_chain(pair):
    """From x_s = a_s x0 + σ_s ε_s and x_t = (a_t/a_s) x_s + √β n follow Var[x_t | x0] and, by conditioning, Var[x_s | x_t, x0]."""
    now, then = pair
    beta, small = step_variance(now, then), posterior_variance(now, then)
    ratio = now.alpha / then.alpha
    assert ratio**2 * then.sigma**2 + beta == pytest.approx(now.sigma**2, rel=1e-12)
    covariance = np.array([[then.sigma**2, ratio * then.sigma**2], [ratio * then.sigma**2, now.sigma**2]])
    schur = covariance[0, 0] - covariance[0, 1] ** 2 / covariance[1, 1]
    assert small == pytest.approx(schur, rel=1e-9)
    assert 0 < small < beta


@pytest.mark.parametrize("scale", [0.5, 127.5])
def test_a_step_does_not_depend_on_the_unit_of_the_pixels(yaml, scale):
    """x, x0 and σ in other units: the same step in other units."""
    now, then = LINEAR[700], LINEAR[500]
    x, x0, z, fraction = randn(0), randn(1), randn(2), torch.rand(2, 3, 4, 4, dtype=torch.float64)
    other = [NoiseLevel(level.t, level.alpha, level.sigma * scale) for level in (now, then)]
    # in the other unit z is still standard normal
    moved = move(load(yaml), x, x0, now, then, Given(z), fraction)
    torch.testing.assert_close(move(load(yaml), scale * x, scale * x0, *other, Given(z), fraction), scale * moved, rtol=1e-12, atol=1e-10)


# Noise


def test_no_noise_is_added_on_the_way_to_the_clean_end(yaml):
    x, x0 = randn(0), randn(1)
    moved = move(load(yaml), x, x0, LINEAR[3], CLEAN, Given(), randn(2))  # Given() has nothing to give
    assert torch.equal(moved, x0)


def test_ddim_at_eta_zero_draws_nothing():
    assert torch.isfinite(move(DDIM(), randn(0), randn(1), LINEAR[3], LINEAR[2], Given())).all()


def test_each_image_s_noise_comes_from_its_own_generator(yaml):
    """What a step adds to image b is a multiple of b's own draws, and does not change with the batch."""
    config = OmegaConf.load(yaml)
    transition = instantiate(config, **({"eta": 0.7} if "eta" in config else {}))
    now, then = LINEAR[700], LINEAR[500]
    x, x0, fraction = randn(0, 3, 1, 4, 4), randn(1, 3, 1, 4, 4), torch.full((3, 1, 4, 4), 0.3, dtype=torch.float64)
    streams = [lambda name=name: image_generator(7, name, "sampling") for name in "abc"]
    silent = move(transition, x, x0, now, then, Given(torch.zeros_like(x)), fraction)
    moved = move(transition, x, x0, now, then, ImageRandom([new() for new in streams]), fraction)
    drawn = torch.stack([torch.from_numpy(new().standard_normal((1, 4, 4))) for new in streams])
    tau = ((moved - silent) / drawn).flatten()
    assert tau.min() > 0
    torch.testing.assert_close(tau, tau[:1].expand_as(tau), rtol=1e-9, atol=0)
    for b in range(3):
        one = slice(b, b + 1)
        alone = move(transition, x[one], x0[one], now, then, ImageRandom([streams[b]()]), fraction[one])
        torch.testing.assert_close(alone[0], moved[b], rtol=0, atol=1e-14)


def test_renoise_is_diffpirs_update():
    """x_s = a_s x̂0 + σ_s (√(1 − ζ) ε̂ + √ζ z) (Zhu et al. 2023, Alg. 1)."""
    now, then = LINEAR[700], LINEAR[500]
    x, x0, z = randn(0), randn(1), randn(2)
    for zeta in (0.0, 0.3, 1.0):
        wanted = then.alpha * x0 + then.sigma * ((1 - zeta) ** 0.5 * now.eps(x, x0) + zeta**0.5 * z)
        torch.testing.assert_close(move(Renoise(zeta), x, x0, now, then, Given(z)), wanted, rtol=1e-12, atol=1e-12)


def test_a_kernel_is_the_mean_and_deviation_of_the_step(yaml):
    now, then = LINEAR[700], LINEAR[500]
    x, denoised = randn(0), Denoised(randn(1), torch.rand(2, 3, 4, 4, dtype=torch.float64))
    mean, std = load(yaml).kernel(x, denoised, now, then)
    for z in (torch.zeros_like(x), randn(2)):
        moved, _ = load(yaml).step(denoised, None, x, now, then, Given(z), None)
        torch.testing.assert_close(moved, mean + std * z, rtol=1e-12, atol=1e-12)


def test_a_noise_estimate_that_the_estimate_brings_is_kept(yaml):
    """With ε̂ given, it replaces the one that follows from x̂0; given the same ε̂, nothing changes."""
    now, then = LINEAR[700], LINEAR[500]
    x, x0, z, fraction = randn(0), randn(1), randn(2), torch.full((2, 3, 4, 4), 0.4, dtype=torch.float64)

    def moved(eps):
        return load(yaml).step(Denoised(x0, fraction, eps), None, x, now, then, Given(z), None)[0]

    torch.testing.assert_close(moved(now.eps(x, x0)), moved(None), rtol=1e-12, atol=1e-12)
    other = randn(5)
    c, _ = load(yaml).noise_split(now, then, fraction)
    shift = (then.sigma**2 - c**2) ** 0.5 * (other - now.eps(x, x0))
    torch.testing.assert_close(moved(other) - moved(None), shift, rtol=1e-10, atol=1e-10)


# Whole runs, step by step beside diffusers


def double(scheduler):
    """The scheduler with its tables in double precision, so that the formulas are compared and not the rounding."""
    betas = torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)
    scheduler.alphas_cumprod = torch.cumprod(1 - betas, 0)
    scheduler.one = scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    return scheduler


def network(x: torch.Tensor, t: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Some smooth ε̂ and v of x and t."""
    return torch.tanh(x.flip(-1) * (0.5 + t / 1000)) + 0.3 * x, torch.sin(3 * x + t)


def ours(transition, grid, start: torch.Tensor, draws: list[torch.Tensor], clip: bool) -> list[torch.Tensor]:
    levels, noise, x, trace = grid(Linear()), Given(*draws), start, []
    for now, then in pairwise(levels):
        eps, v = network(x, now.t)
        x0 = Eps().x0(x, eps, now)
        x = move(transition, x, x0.clamp(-1, 1) if clip else x0, now, then, noise, (v + 1) / 2)
        trace.append(x)
    return trace


@pytest.mark.parametrize("clip", [False, True], ids=["free", "clipped"])
@pytest.mark.parametrize("spacing", ["linspace", "leading"])
@pytest.mark.parametrize(
    ("sampler", "variance"), [("ddpm", "fixed_small"), ("ddpm_large", "fixed_large"), ("ddpm_learned", "learned_range")]
)
def test_a_run_is_diffusers_ddpm_run(sampler, variance, spacing, clip, monkeypatch):
    """Grids that end at t = 0; from a later end diffusers still adds noise on the last step (variance clamped at 1e-20)."""
    ddpm = pytest.importorskip("diffusers.schedulers.scheduling_ddpm")
    start, draws = randn(0), [randn(10 + i) for i in range(20)]
    scheduler = double(ddpm.DDPMScheduler(variance_type=variance, timestep_spacing=spacing, clip_sample=clip))
    scheduler.set_timesteps(20)
    queue = list(draws)
    monkeypatch.setattr(ddpm, "randn_tensor", lambda *args, **kwargs: queue.pop(0))
    x, theirs = start, []
    for t in scheduler.timesteps.tolist():
        output = torch.cat(network(x, t), dim=1) if variance == "learned_range" else network(x, t)[0]
        x = scheduler.step(output, t, x).prev_sample
        theirs.append(x)
    grid = {"linspace": Linspace, "leading": Leading}[spacing](20)
    transition = load(SAMPLERS / f"{sampler}.yaml")
    for step, (a, b) in enumerate(zip(ours(transition, grid, start, draws, clip), theirs, strict=True)):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, msg=lambda text, step=step: f"step {step}: {text}")
    assert len(queue) == 1  # neither drew on the last step


@pytest.mark.parametrize("clip", [False, True], ids=["free", "clipped"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_run_is_diffusers_ddim_run(eta, clip):
    """With leading spacing, the one for which diffusers' DDIM steps to the next level of its own grid; ε̂ follows the clipped x̂0."""
    diffusers = pytest.importorskip("diffusers")
    start, draws = randn(0), [randn(10 + i) for i in range(20)]
    scheduler = double(diffusers.DDIMScheduler(timestep_spacing="leading", clip_sample=clip))
    scheduler.set_timesteps(20)
    x, theirs = start, []
    for t, z in zip(scheduler.timesteps.tolist(), draws, strict=True):
        x = scheduler.step(network(x, t)[0], t, x, eta=eta, use_clipped_model_output=clip, variance_noise=z).prev_sample
        theirs.append(x)
    for step, (a, b) in enumerate(zip(ours(DDIM(eta), Leading(20), start, draws, clip), theirs, strict=True)):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, msg=lambda text, step=step: f"step {step}: {text}")


# Bounds


@pytest.mark.parametrize("eta", [-0.1, 1.01, float("nan")])
def test_eta_outside_the_unit_interval_is_refused(eta):
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 1\]"):
        DDIM(eta)


def test_learned_range_without_learned_variance_is_refused():
    with pytest.raises(ValueError, match="needs a prior with learned variance"):
        move(LearnedRange(), randn(0), randn(1), LINEAR[3], LINEAR[2], Given(randn(2)), None)


def test_only_learned_range_asks_for_variance(yaml):
    assert load(yaml).needs_variance == (yaml.stem == "ddpm_learned")


@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=["linear", "cosine"])
@pytest.mark.parametrize("steps", [2, 10, 1000])
def test_every_step_of_every_grid_has_variances_in_order(schedule, steps):
    """0 < β̃ < min(β, σ_s²): no cancellation makes a variance negative, nor √(σ_s² − β̃) imaginary."""
    levels = Linspace(steps)(schedule)[:-1]
    for now, then in pairwise(levels):
        small, beta = posterior_variance(now, then), step_variance(now, then)
        assert 0 < small < beta and small < then.sigma**2
