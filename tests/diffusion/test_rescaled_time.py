"""A network that is fed t · 1000/T, as guided-diffusion's rescale_timesteps has it: for sampling, for training and on a card."""

from __future__ import annotations

import pytest
import torch
import yaml
from tiny_prior import tiny_prior
from torch import nn

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.preconditioning import X0, Eps, RescaledTime, Score, V
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.card import from_card
from diffusion_priors.diffusion.schedules import VE, Betas, Linear


class Seen(nn.Module):
    """x itself, and a list of the t that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[torch.Tensor] = []

    def forward(self, x, t):
        self.times.append(t)
        return x


@pytest.mark.parametrize("steps", [250, 1000, 4000])
def test_the_network_is_fed_t_times_a_thousand_over_the_steps(steps):
    """t.float() · (1000.0/num_timesteps), in guided-diffusion's words; without the setting it is fed the index."""
    schedule, x = Linear(steps), torch.zeros(2, 3, 8, 8)
    for rescale, factor in ((True, 1000.0 / steps), (False, 1.0)):
        network = Seen()
        denoiser = Denoiser(Prior(network, schedule, Eps(), (8, 8), rescale_timesteps=rescale))
        for t in (0, 7, steps - 1):
            denoiser(x, schedule.level(t))
            expected = torch.full((2,), float(t)) * factor
            torch.testing.assert_close(network.times[-1].float(), expected, rtol=1e-7, atol=0.0)


@pytest.mark.parametrize("kind", [Eps, X0, V, Score])
def test_only_the_time_changes(kind):
    generator = torch.Generator().manual_seed(0)
    x, z, output = (torch.randn(2, 3, 4, 4, generator=generator) for _ in range(3))
    level, inner = NoiseLevel(30, 0.8, 0.6), kind()
    outer = RescaledTime(inner, 0.25)
    assert outer.inputs(x, level)[0] is x and outer.inputs(x, level)[1] == 7.5
    assert torch.equal(outer.x0(x, output, level), inner.x0(x, output, level))
    assert torch.equal(outer.target(x, z, level), inner.target(x, z, level))
    assert torch.equal(outer.error(output, x, z, level), inner.error(output, x, z, level))
    assert outer.gain(level) == inner.gain(level)


def test_a_card_keeps_it(tmp_path):
    plain = tiny_prior(schedule=Betas([0.1] * 40))

    def weights():
        return plain.network.state_dict(), tmp_path

    prior = Prior(plain.network, plain.schedule, Eps(), (16, 16), rescale_timesteps=True)
    card = yaml.safe_load(yaml.safe_dump(prior.describe()))
    again = from_card(card, tmp_path, None, True, weights)
    assert again.rescale_timesteps and again.preconditioning.inputs(torch.zeros(1), NoiseLevel(3, 1.0, 1.0))[1] == 75.0
    assert "rescale_timesteps" not in plain.describe()
    assert not from_card(plain.describe(), tmp_path, None, True, weights).rescale_timesteps


def test_a_continuous_schedule_has_no_number_of_steps():
    with pytest.raises(ValueError, match=r"this one is continuous; set prior\.rescale_timesteps=false"):
        Prior(Seen(), VE(), Eps(), (8, 8), rescale_timesteps=True)
