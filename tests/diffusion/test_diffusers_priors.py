"""Pipelines of diffusers on tiny random weights, loaded as priors: diffusers' own sampling is the reference."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.levels import CLEAN
from diffusion_priors.diffusion.preconditioning import X0, Eps, Score, V
from diffusion_priors.diffusion.priors.diffusers_pipeline import from_diffusers
from diffusion_priors.diffusion.transitions import DDIM, FixedLarge, FixedSmall, LearnedRange

CONFIG = {
    "sample_size": 16,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}
"""The conventions of google/ddpm-celebahq-256, of small width."""
FOURIER = {
    "time_embedding_type": "fourier",
    "down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D"),
    "up_block_types": ("AttnSkipUpBlock2D", "SkipUpBlock2D"),
    "block_out_channels": (32, 32),
    "norm_num_groups": 8,
}
"""Those of google/ncsnpp-celebahq-256."""
STEPS = 12


@pytest.fixture(scope="module")
def diffusers():
    return pytest.importorskip("diffusers")


def network(diffusers, **changes):
    torch.manual_seed(0)
    return diffusers.UNet2DModel(**CONFIG | changes)


def saved(pipeline, folder: Path) -> str:
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    return str(folder)


class Drawn:
    """The noise that diffusers draws from a generator of this seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=self.generator)


def walked(prior, sampler, levels, seed: int = 3) -> torch.Tensor:
    """Two images of [0, 1], sampled by this project."""
    rng, denoiser, memory = Drawn(seed), Denoiser(prior), sampler.start()
    x = rng.normal(torch.empty(2, prior.channels, *prior.size))
    with torch.no_grad():
        for now, then in pairwise([*levels, CLEAN]):
            x, memory = sampler.step(denoiser(x, now), denoiser, x, now, then, rng, memory)
    return (x / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(
    ("schedule", "variance", "sampler"),
    [
        ("linear", "fixed_small", FixedSmall()),
        ("scaled_linear", "fixed_large", FixedLarge()),
        ("squaredcos_cap_v2", "learned_range", LearnedRange()),
        ("sigmoid", "fixed_small", FixedSmall()),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_a_ddpm_pipeline_samples_as_diffusers_does(diffusers, tmp_path, schedule, variance, sampler, prediction):
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=STEPS, beta_start=1e-3, beta_end=0.3, beta_schedule=schedule, variance_type=variance, prediction_type=prediction
    )
    unet = network(diffusers, out_channels=6 if variance == "learned_range" else 3)
    pipeline = diffusers.DDPMPipeline(unet, scheduler)
    prior = from_diffusers(saved(pipeline, tmp_path))
    assert type(prior.preconditioning) is {"epsilon": Eps, "v_prediction": V, "sample": X0}[prediction]
    assert (prior.size, prior.channels, prior.clip, prior.pixel_range) == ((16, 16), 3, True, (-1.0, 1.0))
    assert prior.probe() is (variance == "learned_range")
    wanted = pipeline(2, torch.Generator().manual_seed(3), STEPS, output_type="pt").images
    found = walked(prior, sampler, prior.schedule.table[::-1])
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5)


def test_a_ddim_pipeline_samples_as_diffusers_does(diffusers, tmp_path):
    """Its steps are every third level; set_alpha_to_one makes the last step end without noise."""
    scheduler = diffusers.DDIMScheduler(num_train_timesteps=STEPS, trained_betas=[0.02 + 0.02 * i for i in range(STEPS)], clip_sample=False)
    pipeline = diffusers.DDIMPipeline(network(diffusers), scheduler)
    prior = from_diffusers(saved(pipeline, tmp_path))
    assert not prior.clip
    wanted = pipeline(2, torch.Generator().manual_seed(3), num_inference_steps=4, output_type="np").images
    found = walked(prior, DDIM(), prior.schedule.table[::3][::-1])
    torch.testing.assert_close(found.permute(0, 2, 3, 1), torch.from_numpy(wanted), rtol=0, atol=2e-5)


def test_a_variance_exploding_pipeline_has_the_score_of_diffusers(diffusers, tmp_path):
    """Its images lie in [0, 1]: x̂0 in [0, 1] is x + σ² s with diffusers' s, at the σ that its pipeline feeds."""
    scheduler = diffusers.ScoreSdeVeScheduler(sigma_min=0.01, sigma_max=50.0)
    unet = network(diffusers, **FOURIER)
    prior = from_diffusers(saved(diffusers.ScoreSdeVePipeline(unet, scheduler), tmp_path))
    assert (prior.pixel_range, prior.clip, type(prior.preconditioning)) == ((0.0, 1.0), False, Score)
    scheduler.set_timesteps(5)
    scheduler.set_sigmas(5)
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for sigma in scheduler.sigmas.tolist():
        noisy = image + sigma * Drawn(1).normal(image)
        with torch.no_grad():
            wanted = noisy + sigma**2 * unet(noisy, torch.full((2,), sigma)).sample
            found = Denoiser(prior)(2 * noisy - 1, prior.image_schedule.at(2 * sigma)).x0 / 2 + 0.5
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5 * max(sigma, 1.0))


def test_old_folders_keep_their_files_at_the_top_and_name_attention_otherwise(diffusers, tmp_path):
    from safetensors.torch import load_file, save_file

    new, old = tmp_path / "new", tmp_path / "old"
    saved(diffusers.DDPMPipeline(network(diffusers), diffusers.DDPMScheduler()), new)
    old.mkdir()
    (old / "config.json").write_text((new / "unet" / "config.json").read_text())
    (old / "scheduler_config.json").write_text((new / "scheduler" / "scheduler_config.json").read_text())
    state = load_file(new / "unet" / "diffusion_pytorch_model.safetensors")
    names, renamed = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}, {}
    for name, tensor in state.items():
        for today, before in names.items():
            name = name.replace(today, before)
        renamed[name] = tensor
    assert set(renamed) != set(state)
    save_file(renamed, old / "diffusion_pytorch_model.safetensors")
    x, priors = torch.randn(1, 3, 16, 16), [from_diffusers(str(folder)) for folder in (new, old)]
    one, other = (Denoiser(prior)(x, prior.schedule.table[300]).x0 for prior in priors)
    assert torch.equal(one, other)


def edit(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.fixture(scope="module")
def pipeline_folder(diffusers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    saved(diffusers.DDPMPipeline(network(diffusers), diffusers.DDPMScheduler()), folder)
    return folder


WRONG = [
    ("scheduler", {"variance_type": "learned_range"}, "3 channels out for 3 in, and variance_type='learned_range'"),
    ("unet", {"out_channels": 6}, "6 channels out for 3 in, and variance_type='fixed_small'"),
    ("scheduler", {"_class_name": "ScoreSdeVeScheduler"}, "time_embedding_type=positional is for a network that is fed an index"),
    ("unet", {"time_embedding_type": "fourier"}, "time_embedding_type=fourier is for a network that is fed sigma"),
    ("scheduler", {"_class_name": "FlowMatchEulerDiscreteScheduler"}, "the scheduler 'FlowMatchEulerDiscreteScheduler' is not supported"),
    ("scheduler", {"prediction_type": "noise"}, "prediction_type='noise' is unknown"),
    ("scheduler", {"beta_schedule": "laplace"}, "beta_schedule='laplace' is unknown"),
    ("scheduler", {"trained_betas": [0.1, 0.2]}, "trained_betas has 2 values and num_train_timesteps is 1000"),
    ("scheduler", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr=true ends in a level without signal"),
    ("scheduler", {"thresholding": True}, "thresholding=true"),
    ("scheduler", {"clip_sample_range": 2.0}, "clip_sample_range=2.0 is not supported"),
    ("unet", {"num_class_embeds": 10}, "class-conditional"),
    ("unet", {"_class_name": "UNet2DConditionModel"}, "its network is 'UNet2DConditionModel'"),
    ("unet", {"act_fn": 3}, r"config\.act_fn=3 is of the wrong kind"),
    ("unet", {"new_flag": 1}, r"config\.new_flag is unknown"),
    ("unet", {"block_out_channels": [8, 10**9]}, "out of bounds"),
    ("unet", {"down_block_types": ["DownBlock2D", "os.system"]}, "diffusers builds no network"),
    ("unet", {"block_out_channels": [8, 32]}, "does not fit the network"),
    ("unet", {"sample_size": None}, "has no sample_size"),
]


@pytest.mark.parametrize(("part", "changes", "message"), WRONG, ids=lambda part: str(part)[:40])
def test_what_contradicts_itself_or_is_not_supported_is_named(pipeline_folder, tmp_path, part, changes, message):
    import shutil

    shutil.copytree(pipeline_folder, tmp_path / "p")
    edit(tmp_path / "p" / part / {"unet": "config.json", "scheduler": "scheduler_config.json"}[part], **changes)
    with pytest.raises(ValueError, match=message):
        from_diffusers(str(tmp_path / "p"))


def test_a_pickle_in_place_of_safetensors_is_refused(pipeline_folder, tmp_path):
    import shutil

    shutil.copytree(pipeline_folder, tmp_path / "p")
    weights = tmp_path / "p" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(FileNotFoundError, match=r"found: diffusion_pytorch_model\.bin"):
        from_diffusers(str(tmp_path / "p"))


def test_what_is_no_folder_and_no_name_is_refused():
    with pytest.raises(FileNotFoundError, match="no folder at 'nowhere', and it is no name on the hub"):
        from_diffusers("nowhere")
