"""A prior that is small enough for a test, its images, and its weights as one tensor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.networks.unet import UNet
from diffusion_priors.diffusion.preconditioning import X0, Eps, Preconditioning, Score, V
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.schedules import Betas, Cosine, Linear, Schedule

FLAGS = {
    "image_size": 16,
    "num_channels": 8,
    "channel_mult": [1, 2],
    "attention_resolutions": [],
    "num_head_channels": 8,
    "min_group_channels": 4,
    "learn_sigma": False,
}


def scrambled(network: nn.Module, seed: int = 0) -> nn.Module:
    """Move every weight: layers that start at zero would hide the rest of the network from the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            spread = 0.5 / max(parameter[0].numel(), 1) ** 0.5 if parameter.dim() > 1 else 0.1
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator))
    return network


def tiny_prior(
    flags: dict | None = None,
    schedule: Schedule | None = None,
    preconditioning: Preconditioning | None = None,
    pixel_range: tuple[float, float] = (-1.0, 1.0),
    seed: int = 0,
) -> Prior:
    """A prior of 16 x 16 images, its weights a function of the seed alone."""
    torch.manual_seed(seed)
    network = scrambled(UNet(**FLAGS | (flags or {})), seed)
    return Prior(network, schedule or Linear(10, 1e-4, 2e-2), preconditioning or Eps(), (16, 16), network.flags["in_channels"], pixel_range)


def images(count: int, channels: int = 3, seed: int = 0) -> Tensor:
    """(count, C, 16, 16) in [-1, 1], from bytes, with black and white among them."""
    generator = np.random.default_rng(seed)
    drawn = generator.integers(-60, 316, (count, channels, 16, 16)).clip(0, 255)
    return torch.from_numpy(drawn.astype(np.float32)) / 127.5 - 1.0


def weights(module: nn.Module) -> Tensor:
    """All parameters, one after the other."""
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()]).clone()


NETWORKS = {
    "plain": {},
    "learned variance": {"learn_sigma": True, "resblock_updown": False},
    "grey": {"in_channels": 1, "attention_resolutions": (8,), "num_head_channels": -1, "num_heads": 2, "new_attention_order": True},
    "deep": {"channel_mult": (1, 1.5, 2), "num_res_blocks": 2, "use_scale_shift_norm": False, "dropout": 0.25, "max_groups": 2},
}
SCHEDULES = {
    "linear": Linear(20, 1e-3, 0.3),
    "cosine": Cosine(20, s=0.02, max_beta=0.9),
    "betas": Betas([0.1 / 3.0, 0.1, 0.2, 1.0 / 3.0, 0.7]),
}
KINDS = [Eps, X0, V, Score]
RANGES = [(-1.0, 1.0), (0.0, 1.0), (-0.5, 2.0), (0.0, 255.0)]


def priors() -> list:
    """Every network with every schedule; preconditionings and pixel ranges alternate."""
    pairs = [(network, schedule) for network in NETWORKS for schedule in SCHEDULES]
    return [pytest.param(n, s, KINDS[i % 4], RANGES[(i + i // 4) % 4], id=f"{n}-{s}-{KINDS[i % 4].name}") for i, (n, s) in enumerate(pairs)]


def assert_same_denoiser(found: Prior, expected: Prior) -> None:
    """x̂0 and the variance fraction are equal bit for bit, at every level looked at."""
    assert found.image_schedule.table == expected.image_schedule.table
    assert (found.size, found.channels, found.clip) == (expected.size, expected.channels, expected.clip)
    mine, theirs = Denoiser(found), Denoiser(expected)
    x = 2.0 * images(2, found.channels)
    for level in expected.image_schedule.table[:: max(1, len(expected.image_schedule.table) // 3)]:
        one, other = mine(x, level), theirs(x, level)
        assert torch.equal(one.x0, other.x0)
        assert (one.variance_fraction is None) == (other.variance_fraction is None)
        assert one.variance_fraction is None or torch.equal(one.variance_fraction, other.variance_fraction)
