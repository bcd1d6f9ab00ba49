"""Preconditionings: a network that knows the noise gives back the clean image, at every level and in every unit."""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.preconditioning import X0, Eps, Score, V
from diffusion_priors.diffusion.priors import Prior

CONF = Path(__file__).parents[2] / "conf"
PRECONDITIONINGS = sorted((CONF / "preconditioning").glob("*.yaml"))
SCHEDULES = sorted((CONF / "schedule").glob("*.yaml"))

ORACLES = {  # what a perfect network of each kind says of x = a · x0 + s · e
    "eps": lambda a, s, x0, e: e,
    "x0": lambda a, s, x0, e: x0,
    "v": lambda a, s, x0, e: a * e - s * x0,
    "score": lambda a, s, x0, e: -e / s,
}


class Oracle(nn.Module):
    """Says what it is told to, and keeps what it was shown."""

    def forward(self, x, t):
        self.seen = x, t
        return self.answer


@pytest.mark.parametrize("pixel_range", [(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0), (-0.5, 2.0)])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda path: path.stem)
@pytest.mark.parametrize("preconditioning", PRECONDITIONINGS, ids=lambda path: path.stem)
def test_a_perfect_network_gives_back_the_clean_image(preconditioning, schedule, pixel_range):
    """In the network's own units x = √ᾱ x0 + √(1−ᾱ) ε, x0 in `pixel_range`; outside, all is in [-1, 1]."""
    say, network = ORACLES[preconditioning.stem], Oracle()
    prior = Prior(
        network,
        instantiate(OmegaConf.load(schedule)),
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
    bars = torch.cumprod(1 - torch.tensor(prior.schedule.betas, dtype=torch.float64), 0)
    for t in [*range(0, 1000, 37), 998, 999]:
        a, s = bars[t].sqrt(), (1 - bars[t]).sqrt()
        network.answer = say(a, s, own, eps)
        level = prior.levels[t]
        denoised = denoiser(level.diffuse(x0, eps), level)
        torch.testing.assert_close(network.seen[0], a * own + s * eps, rtol=1e-12, atol=1e-10 * (high - low))
        torch.testing.assert_close(denoised.x0, x0, rtol=0, atol=1e-10)
        assert network.seen[1].tolist() == [t, t]


@pytest.mark.parametrize("level", [NoiseLevel(3, 0.8, 0.6), NoiseLevel(0, 1.0, 40.0), NoiseLevel(0.3, 0.7, 0.3)], ids=["vp", "ve", "flow"])
@pytest.mark.parametrize("kind", [Eps, X0, V, Score])
def test_no_preconditioning_assumes_a_variance_preserving_level(kind, level):
    say = ORACLES[kind.__name__.lower()]
    generator = torch.Generator().manual_seed(1)
    x0, eps = torch.randn(2, 1, 1, 5, 5, dtype=torch.float64, generator=generator)
    output = say(level.alpha, level.sigma, x0, eps)
    torch.testing.assert_close(kind().x0(level.diffuse(x0, eps), output, level), x0, rtol=1e-12, atol=1e-12)
