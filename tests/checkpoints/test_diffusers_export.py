"""Priors written as pipelines of diffusers: what diffusers loads and samples is compared with this project's own."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from tiny_prior import scrambled

from diffusion_priors.checkpoints.diffusers_export import export_diffusers
from diffusion_priors.conf import PROJECT
from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.levels import CLEAN
from diffusion_priors.diffusion.networks.unet import UNet
from diffusion_priors.diffusion.preconditioning import EDM, X0, Eps, V
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.diffusers_pipeline import from_diffusers
from diffusion_priors.diffusion.priors.folder import from_folder
from diffusion_priors.diffusion.schedules import VE, Betas, Cosine, Linear
from diffusion_priors.diffusion.transitions import FixedSmall, LearnedRange

FLAGS = {
    "image_size": 16,
    "num_channels": 16,
    "channel_mult": [1, 1.5, 2],
    "attention_resolutions": [8],
    "num_head_channels": 8,
    "max_groups": 8,
    "learn_sigma": False,
}
NETWORKS = {
    "resampled in blocks": {"num_res_blocks": 2},
    "learned variance": {"learn_sigma": True, "attention_resolutions": [16, 4]},
    "convolutions": {"resblock_updown": False, "use_scale_shift_norm": False},
    "new order of heads": {"new_attention_order": True, "num_head_channels": 4},
    "given heads": {"channel_mult": [1, 1], "num_head_channels": -1, "num_heads": 2, "in_channels": 1},
}
STEPS = 10


@pytest.fixture(scope="module")
def diffusers():
    return pytest.importorskip("diffusers")


def prior_of(flags=None, schedule=None, preconditioning=None, **settings) -> Prior:
    network = scrambled(UNet(**FLAGS | (flags or {})))
    channels = network.flags["in_channels"]
    return Prior(network, schedule or Linear(STEPS, 1e-3, 0.3), preconditioning or Eps(), (16, 16), channels, **settings)


def sampled(prior: Prior, sampler) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)

    class Drawn:
        def normal(self, like):
            return torch.randn(like.shape, generator=generator)

    rng, denoiser, memory = Drawn(), Denoiser(prior), sampler.start()
    x = rng.normal(torch.empty(2, prior.channels, *prior.size))
    with torch.no_grad():
        for now, then in pairwise([*prior.schedule.table[::-1], CLEAN]):
            x, memory = sampler.step(denoiser(x, now), denoiser, x, now, then, rng, memory)
    return (x / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize(
    ("flags", "schedule", "preconditioning"),
    [
        ("resampled in blocks", Linear(STEPS, 1e-3, 0.3), Eps()),
        ("learned variance", Cosine(STEPS), Eps()),
        ("convolutions", Betas([0.01, 0.03, 0.1, 0.2, 0.3]), V()),
        ("new order of heads", Cosine(STEPS, s=0.02), X0()),
        ("given heads", Linear(STEPS, 1e-3, 0.3), Eps()),
    ],
    ids=list(NETWORKS),
)
def test_diffusers_samples_from_an_exported_prior_as_this_project_does(diffusers, tmp_path, flags, schedule, preconditioning):
    prior = prior_of(NETWORKS[flags], schedule, preconditioning)
    export_diffusers(prior, tmp_path)
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    _, loading = diffusers.UNet2DModel.from_pretrained(tmp_path / "unet", output_loading_info=True)
    assert not any(loading.values()), loading
    steps = len(schedule.table)
    wanted = sampled(prior, LearnedRange() if prior.probe() else FixedSmall())
    found = pipeline(2, torch.Generator().manual_seed(5), steps, output_type="pt").images
    assert wanted.std() > 0.05
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5)


def test_an_exported_prior_comes_back_the_same(diffusers, tmp_path):
    """Also by way of a folder of diffusers, which is exported again as it is."""
    prior, x = prior_of(clip=False), torch.randn(2, 3, 16, 16)
    export_diffusers(prior, tmp_path / "first")
    back = from_diffusers(str(tmp_path / "first"))
    export_diffusers(back, tmp_path / "second")
    again = from_diffusers(str(tmp_path / "second"))
    for level in prior.schedule.table[::3]:
        wanted = Denoiser(prior)(x, level).x0
        torch.testing.assert_close(Denoiser(back)(x, level).x0, wanted, rtol=1e-5, atol=1e-5 / level.alpha)
        assert torch.equal(Denoiser(again)(x, level).x0, Denoiser(back)(x, level).x0)


WRONG = [
    ({"flags": {"min_group_channels": 4}}, r"groups of normalisation that differ between layers: this network has \[4, 6, 8"),
    ({"flags": {"channel_mult": [0.5, 1, 1]}}, r"channel_mult=\[0\.5, 1, 1\]"),
    ({"flags": {"num_head_channels": -1, "num_heads": 2}}, "num_heads=2 at levels of different width"),
    ({"schedule": VE()}, "the schedule ve"),
    ({"preconditioning": EDM()}, "preconditioning=edm: it knows eps, v, x0"),
    ({"pixel_range": (0.0, 1.0)}, r"images in \[0\.0, 1\.0\]"),
    ({"rescale_timesteps": True}, r"rescaled timesteps: it feeds t, and this network is fed t · 1000/10"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=lambda part: str(part)[:40])
def test_what_diffusers_has_no_equal_for_is_named_and_nothing_is_written(tmp_path, changes, message):
    with pytest.raises(ValueError, match=f"diffusers has no equal for {message}.*cannot be exported"):
        export_diffusers(prior_of(**changes), tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_the_bundled_prior_is_refused_for_its_groups(tmp_path):
    with pytest.raises(ValueError, match=r"this network has \[8, "):
        export_diffusers(from_folder(str(PROJECT / "diffusion" / "weights" / "faces64")), tmp_path)
