"""The law of a list of images, compared with sums written out in NumPy, with derivatives and with narrow mixtures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_priors.diffusion.analytic import empirical as module
from diffusion_priors.diffusion.analytic import image_means
from diffusion_priors.diffusion.analytic.covariances import Dense
from diffusion_priors.diffusion.analytic.empirical import Empirical
from diffusion_priors.diffusion.analytic.image_means import Folder, Patches
from diffusion_priors.diffusion.analytic.laws import Gaussian, Mixture
from diffusion_priors.diffusion.analytic.means import Drawn
from diffusion_priors.diffusion.analytic.priors import empirical, exact
from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.image_random import image_generator
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.schedules import VE, Cosine, Flow, Linear
from diffusion_priors.images.fit import Crop, Exact

SHAPE = (3, 2, 4)
WEIGHTS = [0.1, 0.25, 0.05, 0.2, 0.4]
LEVELS = [Linear().table[t] for t in (100, 400, 999)] + [NoiseLevel(0, 1.0, 3.0), NoiseLevel(0, 0.4, 0.6)]


def images(count: int, shape=SHAPE, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)).double()


def near(x0: torch.Tensor, level: NoiseLevel, seed: int = 7) -> torch.Tensor:
    """States between the images, so that several of them have a share."""
    return level.alpha * (0.5 * x0[:3] + 0.5 * x0[1:4]) + 0.5 * level.sigma * images(3, seed=seed)


def written_out(x: torch.Tensor, x0: torch.Tensor, weights: list[float], level: NoiseLevel):
    """log p_t (B,), the responsibilities (B, N), x̂0 (B, D) and Cov[x0 | x_t] (B, D, D), image by image in extended precision."""
    rows, places = (part.flatten(1).numpy().astype(np.longdouble) for part in (x, x0))
    side, variance = rows.shape[1], np.longdouble(level.sigma) ** 2
    logs, chances, means, covariances = [], [], [], []
    for row in rows:
        terms = np.array([-((row - level.alpha * p) ** 2).sum() / (2 * variance) for p in places])
        most = terms.max()  # at low noise exp would give 0 for all of them
        likely = [w * np.exp(term - most) for w, term in zip(weights, terms, strict=True)]
        share = np.array(likely) / sum(likely)
        mean = sum(s * p for s, p in zip(share, places, strict=True))
        logs.append(np.log(sum(likely)) + most - side / 2 * np.log(2 * np.pi * variance))
        chances.append(share)
        means.append(mean)
        covariances.append(sum(s * np.outer(p - mean, p - mean) for s, p in zip(share, places, strict=True)))
    return [np.array(found, dtype=np.float64) for found in (logs, chances, means, covariances)]


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["equal", "weighted"])
@pytest.mark.parametrize("level", LEVELS, ids=str)
def test_the_law_is_its_sum_written_out(level, weights):
    x0 = images(5)
    x, v = near(x0, level), images(3, seed=1)
    law = Empirical(x0, weights)
    log, chances, mean, covariance = written_out(x, x0, weights or [0.2] * 5, level)
    np.testing.assert_allclose(law.log_density(x, level), log, rtol=1e-10)
    np.testing.assert_allclose(law.responsibilities(x, level), chances, atol=1e-11)
    np.testing.assert_allclose(law.x0(x, level).flatten(1), mean, atol=1e-11)
    wanted = np.einsum("bij,bj->bi", covariance, v.flatten(1).numpy())
    np.testing.assert_allclose(law.covariance_times(x, level, v).flatten(1), wanted, atol=1e-10)


@pytest.mark.parametrize("level", LEVELS, ids=str)
def test_the_score_is_the_difference_quotient_of_the_density(level):
    """Tweedie: (α x̂0 − x)/σ² = ∇ log p_t(x), along every coordinate."""
    x0 = images(5)
    law, x, h = Empirical(x0, WEIGHTS), near(x0, level)[:1], 1e-5 * level.sigma
    units = h * torch.eye(x.numel(), dtype=torch.float64).view(-1, *SHAPE)
    quotient = (law.log_density(x + units, level) - law.log_density(x - units, level)) / (2.0 * h)
    torch.testing.assert_close(law.score(x, level).flatten(), quotient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("level", LEVELS, ids=str)
def test_the_jacobian_of_x0_is_the_covariance(level):
    """∂x̂0/∂x_t = (α/σ²) Cov[x0 | x_t], symmetric, by autograd; and second derivatives exist."""
    x0 = images(5)
    law, x = Empirical(x0, WEIGHTS), near(x0, level)[:1]
    found = torch.autograd.functional.jacobian(lambda given: law.x0(given, level), x).view(24, 24)
    covariance = written_out(x, x0, WEIGHTS, level)[3][0]
    np.testing.assert_allclose(found, level.alpha / level.sigma**2 * covariance, atol=1e-9)
    assert torch.autograd.gradgradcheck(lambda given: law.x0(given, level).square().sum(), x.requires_grad_())


def test_without_noise_x0_is_the_nearest_image_and_without_signal_the_mean():
    x0 = images(5)
    law, x = Empirical(x0, WEIGHTS), 0.3 * images(40, seed=3)
    clear, lost = NoiseLevel(0, 1.0, 1e-4), NoiseLevel(0, 1e-4, 1.0)
    nearest = (x[:, None] - x0).flatten(2).square().sum(2).argmin(1)
    assert len(nearest.unique()) > 2
    torch.testing.assert_close(law.x0(x, clear), x0[nearest], rtol=0.0, atol=1e-12)
    assert law.covariance_times(x, clear, x).abs().max() < 1e-12
    mean = torch.einsum("n,nchw->chw", torch.tensor(WEIGHTS, dtype=torch.float64), x0)
    torch.testing.assert_close(law.x0(x, lost), mean.expand_as(x), rtol=0.0, atol=2e-3)
    torch.testing.assert_close(law.x0(x, NoiseLevel(1, 0.0, 1.0)), mean.expand_as(x))


def test_images_blurred_by_a_gaussian_are_the_mixture_and_its_noise_adds_to_the_level():
    """Σ w_i N(x_i, s² I) at (α, σ) has the p_t of Σ w_i δ(x_i) at (α, √(σ² + α² s²))."""
    x0, s, level = images(5), 0.3, NoiseLevel(0, 0.7, 0.5)
    around = Dense(s**2 * torch.eye(24, dtype=torch.float64), SHAPE)
    smooth = Mixture(WEIGHTS, [Gaussian(one, around) for one in x0])
    x, more = near(x0, level), NoiseLevel(0, 0.7, float(np.hypot(0.5, 0.7 * s)))
    torch.testing.assert_close(Empirical(x0, WEIGHTS).log_density(x, more), smooth.log_density(x, level))
    torch.testing.assert_close(Empirical(x0, WEIGHTS).score(x, more), smooth.score(x, level))


def test_at_low_noise_near_twins_of_many_pixels_keep_their_shares():
    """Two images that differ in one grey level of one pixel: in float32 the distances of 12 288 pixels hide it."""
    x0 = images(1, (3, 64, 64)).float().repeat(2, 1, 1, 1)
    x0[1, 0, 5, 5] += 1 / 127.5
    level = NoiseLevel(0.002, 1.0, 0.002)
    x = x0[:1].double() + 0.0
    x[0, 0, 5, 5] += 0.3 / 127.5
    step = (x0[1, 0, 5, 5].double() - x0[0, 0, 5, 5].double()).item()
    away = 0.3 / 127.5
    odds = np.exp((away**2 - (step - away) ** 2) / (2 * level.sigma**2))
    found = Empirical(x0).responsibilities(x, level)[0]
    np.testing.assert_allclose(found[1] / found[0], odds, rtol=1e-4)


def test_images_are_taken_a_few_at_a_time_with_the_same_result(monkeypatch):
    x0, level = images(5), LEVELS[1]
    x, v = near(x0, level).requires_grad_(), images(3, seed=1)
    whole = Empirical(x0, WEIGHTS)
    wanted = whole.x0(x, level)
    (gradient,) = torch.autograd.grad((wanted * v).sum(), x)
    monkeypatch.setattr(module, "AT_ONCE", 50)
    few = Empirical(x0, WEIGHTS)
    assert [len(part) for part in few._parts()] == [2, 2, 1]
    torch.testing.assert_close(few.x0(x, level), wanted)
    torch.testing.assert_close(torch.autograd.grad((few.x0(x, level) * v).sum(), x)[0], gradient)


def test_draws_are_the_images_in_their_shares_from_one_generator_each():
    x0 = images(5)
    law = Empirical(x0, WEIGHTS)
    drawn = law.draw([image_generator(0, b) for b in range(4000)])
    which = (drawn[:, None] == x0).flatten(2).all(2)
    assert (which.sum(1) == 1).all()
    share = which.double().mean(0).numpy()
    assert (np.abs(share - WEIGHTS) < 5 * (np.array(WEIGHTS) / 4000) ** 0.5).all()
    torch.testing.assert_close(law.draw([image_generator(0, 17)])[0], drawn[17])


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), VE(), Flow()], ids=lambda schedule: type(schedule).__name__)
def test_the_denoiser_and_its_pull_back_are_exact_at_every_level_of_every_schedule(schedule):
    """Float32 outside, also at the least and the most noise; an image's result does not depend on the batch."""
    x0 = images(5)
    prior = exact(Empirical(x0, WEIGHTS), schedule)
    denoiser, v = Denoiser(prior), images(3, seed=1)
    levels = schedule.discretised()
    for level in (levels[0], levels[300], levels[-1]):
        x = near(x0, level)
        denoised, pull_back = denoiser.linearise(x.float(), level)
        _, _, mean, covariance = written_out(x.float().double(), x0, WEIGHTS, level)
        np.testing.assert_allclose(denoised.x0.flatten(1), mean, atol=1e-5)
        wanted = level.alpha / level.sigma**2 * np.einsum("bij,bj->bi", covariance, v.flatten(1).numpy())
        np.testing.assert_allclose(pull_back(v.float()).flatten(1), wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max() + 1e-6)
        torch.testing.assert_close(denoiser(x[1:2].float(), level).x0, denoised.x0[1:2])
    assert prior.probe() is False


def write(folder, count: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """`count` colour images (N, H, W, 3), as files."""
    folder.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)
    for k, one in enumerate(pixels):
        Image.fromarray(one).save(folder / f"{k:02}.png")
    return pixels


def scaled(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy((pixels.astype(np.float32) / 127.5 - 1.0).transpose(0, 3, 1, 2).copy())


def test_a_folder_gives_its_images_and_a_limit_some_of_them_by_the_seed(tmp_path):
    wanted = scaled(write(tmp_path / "own", 9, (6, 5)))
    root = str(tmp_path / "own")
    torch.testing.assert_close(Folder(Exact(), root)((3, 6, 5)), wanted)
    subsets = [Folder(Exact(), root, limit=4, seed=seed)((3, 6, 5)) for seed in (0, 0, 1)]
    assert torch.equal(subsets[0], subsets[1]) and not torch.equal(subsets[0], subsets[2])
    for subset in subsets:
        assert (subset[:, None] == wanted).flatten(2).all(2).any(0).sum() == 4
    assert (Folder(Exact(), root, limit=8)((3, 6, 5))[:, None] == wanted).flatten(2).all(2).any(0).sum() == 8
    assert len(Folder(Exact(), root, limit=50)((3, 6, 5))) == 9
    cropped = Folder(Crop(), root)((1, 4, 4))
    assert cropped.shape == (9, 1, 4, 4) and cropped.dtype == torch.float32


def test_patches_are_parts_of_the_images_and_their_turned_copies_follow(tmp_path):
    whole = scaled(write(tmp_path / "own", 2, (12, 8)))
    found = Patches(str(tmp_path / "own"), components=6, zoom=2, turned=True)((3, 6, 4))
    windows = whole.unfold(2, 6, 1).unfold(3, 4, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 6, 4)
    for patch in found[:6]:
        assert (windows == patch).flatten(1).all(1).sum() == 1
    assert len({patch.sum().item() for patch in found[:6]}) > 3
    torch.testing.assert_close(found[6:], found[:6].rot90(2, (-2, -1)))
    assert torch.equal(Patches(str(tmp_path / "own"), components=4, zoom=2)((3, 6, 4)), found[:4])


def refused(folder) -> dict:
    write(folder / "one", 1, (6, 5))
    write(folder / "one", 2, (6, 5), seed=2)
    Image.new("RGB", (7, 7)).save(folder / "one" / "odd.png")
    (folder / "none").mkdir()
    one = str(folder / "one")
    return {
        "no images in the folder": lambda: Folder(Crop(), str(folder / "none"))((3, 6, 5)),
        r"odd\.png: it is 7 x 7, wanted is 6 x 5": lambda: Folder(Exact(), one)((3, 6, 5)),
        r"limit=0; set prior\.means\.limit": lambda: Folder(Crop(), one, limit=0),
        r"3 images of 3 x 16384 x 8192 are too many to hold in memory, at most 1 .* set prior\.means\.limit=1": lambda: Folder(Crop(), one)(
            (3, 16384, 8192)
        ),
        r"at least 1, got 0; set prior\.means\.zoom": lambda: Patches(one, zoom=0),
        r"at least 1, got 0; set prior\.means\.components": lambda: Patches(one, components=0),
        r"4000000 images of 1 x 16 x 16 are too many .* prior\.means\.components=2097152": lambda: Patches(one, 4_000_000)((1, 16, 16)),
        r"5 components need as many weights .*prior\.weights": lambda: Empirical(images(5), [0.5, 0.5]),
        r"set prior\.channels": lambda: empirical(Linear(), Drawn(2), channels=2),
    }


@pytest.mark.parametrize("k", range(9))
def test_bad_values_are_refused_with_the_override_that_fixes_them(k, tmp_path):
    message, make = list(refused(tmp_path).items())[k]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        make()


def test_memory_is_asked_before_an_image_is_read(tmp_path, monkeypatch):
    write(tmp_path / "own", 3, (6, 5))
    monkeypatch.setattr(image_means, "read_image", lambda *_: pytest.fail("an image was read"))
    with pytest.raises(ValueError, match="too many"):
        Folder(Crop(), str(tmp_path / "own"))((3, 16384, 8192))
