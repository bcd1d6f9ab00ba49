"""Preconditionings: a network that knows the noise gives back the clean image, at every level and in every unit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.preconditioning import EDM, X0, Denoising, Eps, Flow, Score, V
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.schedules import Cosine

CONF = Path(__file__).parents[2] / "conf"
PRECONDITIONINGS = sorted((CONF / "preconditioning").glob("*.yaml"))
SCHEDULES = sorted((CONF / "schedule").glob("*.yaml"))

ORACLES = {  # what a perfect network of each kind says of x = a · x0 + s · e
    "eps": lambda a, s, x0, e: e,
    "x0": lambda a, s, x0, e: x0,
    "v": lambda a, s, x0, e: a * e - s * x0,
    "score": lambda a, s, x0, e: -e / s,
    "flow": lambda a, s, x0, e: e - x0,
    "denoising": lambda a, s, x0, e: x0,
    "edm": lambda a, s, x0, e: edm_target(a, s, x0, e),  # noqa: PLW0108 - it is defined below
}


def edm_target(a, s, x0, e, d=0.5):
    """(x0 − c_skip x)/c_out for x = x0 + u e, u = s/a (Karras et al. 2022, Eq. 8)."""
    u = s / a
    return (x0 - d**2 / (u**2 + d**2) * (x0 + u * e)) * (u**2 + d**2) ** 0.5 / (u * d)


def shown(kind: str, a, s, x, t):
    """What the network is fed: (x, t); for EDM c_in x/a and ln(u)/4; a denoiser x/a and u."""
    if kind == "denoising":
        return x / a, s / a
    return (x / (s**2 + 0.25 * a**2) ** 0.5, np.log(s / a) / 4) if kind == "edm" else (x, t)


class Oracle(nn.Module):
    """Says what it is told to, and keeps what it was shown."""

    def forward(self, x, t):
        self.seen = x, t
        return self.answer


def schedule_of(path):
    """The schedule of a yaml file; one of your own betas gets those of the cosine schedule."""
    node = OmegaConf.load(path)
    return instantiate(node, betas=Cosine().betas, _convert_="all") if OmegaConf.is_missing(node, "betas") else instantiate(node)


@pytest.mark.parametrize("pixel_range", [(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0), (-0.5, 2.0)])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda path: path.stem)
@pytest.mark.parametrize("preconditioning", PRECONDITIONINGS, ids=lambda path: path.stem)
def test_a_perfect_network_gives_back_the_clean_image(preconditioning, schedule, pixel_range):
    """In the network's own units x = √ᾱ x0 + √(1−ᾱ) ε, x0 in `pixel_range`; outside, all is in [-1, 1]."""
    say, network = ORACLES[preconditioning.stem], Oracle()
    prior = Prior(
        network,
        schedule_of(schedule),
        instantiate(OmegaConf.load(preconditioning)),
        size=(3, 4),
        pixel_range=pixel_range,
        clip=False,
    )
    denoiser = Denoiser(prior)
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(2, 3, 3, 4, dtype=torch.float64, generator=generator) * 2 - 1
    eps = torch.randn(2, 3, 3, 4, dtype=torch.float64, generator=generator)
    low, high = pixel_range
    own = low + (x0 + 1) / 2 * (high - low)
    levels = prior.schedule.discretised()
    for level in [*levels[5::37], levels[-2]]:
        network.answer = say(level.alpha, level.sigma, own, eps)
        x = level.alpha * own + level.sigma * eps
        outside = NoiseLevel(level.t, level.alpha, 2 * level.sigma / (high - low))
        denoised = denoiser(outside.diffuse(x0, eps), outside)
        fed, noise = shown(preconditioning.stem, level.alpha, level.sigma, x, level.t)
        torch.testing.assert_close(network.seen[0], fed, rtol=1e-12, atol=1e-10 * (high - low))
        torch.testing.assert_close(denoised.x0, x0, rtol=0, atol=1e-9)
        assert network.seen[1].tolist() == pytest.approx([noise] * 2, rel=1e-6)


def test_the_image_schedule_is_in_the_units_of_images():
    """What the test above takes as given: σ divided by half the pixel range, α and t unchanged."""
    for path in SCHEDULES:
        prior = Prior(Oracle(), schedule_of(path), Eps(), size=(3, 4), pixel_range=(0.0, 255.0))
        for own, level in zip(prior.schedule.discretised(), prior.image_schedule.discretised(), strict=True):
            assert (level.t, level.alpha, level.sigma) == (own.t, own.alpha, own.sigma / 127.5)


@pytest.mark.parametrize("level", [NoiseLevel(3, 0.8, 0.6), NoiseLevel(0, 1.0, 40.0), NoiseLevel(0.3, 0.7, 0.3)], ids=["vp", "ve", "flow"])
@pytest.mark.parametrize("kind", [Eps, X0, V, Score, EDM, Flow, Denoising])
def test_no_preconditioning_assumes_a_variance_preserving_level(kind, level):
    say = ORACLES[kind.__name__.lower()]
    generator = torch.Generator().manual_seed(1)
    x0, eps = torch.randn(2, 1, 1, 5, 5, dtype=torch.float64, generator=generator)
    output = say(level.alpha, level.sigma, x0, eps)
    torch.testing.assert_close(kind().x0(level.diffuse(x0, eps), output, level), x0, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [Eps, X0, V, Score, EDM, Flow, Denoising])
def test_the_target_is_what_a_perfect_network_gives_and_the_gain_relates_the_two_errors(kind):
    """‖error‖² = gain ‖x̂0 − x0‖² for any output."""
    level = NoiseLevel(0.3, 0.7, 0.4)
    x0, z, output = torch.randn(3, 2, 1, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    preconditioning = kind()
    target = ORACLES[kind.__name__.lower()](level.alpha, level.sigma, x0, z)
    torch.testing.assert_close(preconditioning.target(x0, z, level), target, rtol=1e-12, atol=1e-12)
    estimate = preconditioning.x0(level.diffuse(x0, z), output, level)
    error = preconditioning.error(output, x0, z, level).square().sum()
    torch.testing.assert_close(error, preconditioning.gain(level) * (estimate - x0).square().sum(), rtol=1e-10, atol=0)


@pytest.mark.parametrize("kind", [X0, V, EDM, Flow])
def test_a_level_without_signal_divides_by_nothing(kind):
    """α = 0, where a flow starts: x̂0 is finite for any output."""
    level = NoiseLevel(1.0, 0.0, 1.0)
    x, output = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    assert kind().x0(x, output, level).isfinite().all()
    assert kind().inputs(x, level)[0].isfinite().all()
