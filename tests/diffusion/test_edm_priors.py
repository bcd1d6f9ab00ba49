"""The networks of EDM against numbers of the authors' code, and the preconditioning against its formula in NumPy.

The numbers come from training/networks.py of github.com/NVlabs/edm (commit 008a4e5): SongUNet and DhariwalUNet with the arguments of
CASES, as `model` inside EDMPrecond(img_resolution=16, img_channels=3, …), filled by `filled` and fed `fed()`, their output
`.flatten()[::191]`.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from diffusion_priors.api.parts import load_prior
from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.networks.edm import DhariwalUNet, SongUNet
from diffusion_priors.diffusion.networks.edm_shapes import edm_flags, edm_network
from diffusion_priors.diffusion.priors.edm import from_edm
from diffusion_priors.diffusion.priors.folder import from_folder

SMALL = {"image_size": 16, "model_channels": 8, "attention_resolutions": [8]}
CASES = {
    "ddpm++": (SongUNet, SMALL | {"channel_mult": [1, 2, 2], "num_blocks": 2, "augment_dim": 9}),
    "ncsn++": (
        SongUNet,
        SMALL
        | {"channel_mult": [1, 2], "num_blocks": 1, "augment_dim": 9, "fourier": True, "channel_mult_noise": 2}
        | {"residual_encoder": True, "resample_filter": [1, 3, 3, 1]},
    ),
    "adm": (DhariwalUNet, SMALL | {"model_channels": 64, "channel_mult": [1, 2], "num_blocks": 1}),
}
GOLDEN = {
    "ddpm++": [0.327659, 0.266416, -0.07525, -0.284478, -0.26444, 0.306872, -0.051902, -0.283642, -0.263857],
    "ncsn++": [0.361989, 0.287193, -0.090087, -0.283308, -0.2595, 0.330811, -0.062252, -0.282691, -0.259349],
    "adm": [-0.077477, -0.083245, -0.298337, 0.129958, 0.123378, -0.070914, -0.295725, 0.130464, 0.123429],
}
SIGMAS = torch.tensor([0.3, 2.0])


def filled(network: nn.Module) -> nn.Module:
    """Every weight a cosine: the same whatever draws random numbers."""
    with torch.no_grad():
        for i, (_, tensor) in enumerate(sorted(network.named_parameters())):
            scale = 0.9 / max(tensor[0].numel(), 1) ** 0.5 if tensor.dim() > 1 else 0.3
            waves = torch.cos(1.7 * torch.arange(tensor.numel(), dtype=torch.float64) + i)
            tensor.copy_((scale * waves).view(tensor.shape).float())
        for name, tensor in network.named_buffers():
            if name.endswith("freqs"):
                tensor.copy_(2 * torch.cos(torch.arange(tensor.numel()) * 1.0))
    return network.eval()


def fed() -> torch.Tensor:
    return 2 * torch.cos(0.37 * torch.arange(2 * 3 * 256, dtype=torch.float64)).view(2, 3, 16, 16).float()


def built(case: str) -> nn.Module:
    kind, flags = CASES[case]
    return filled(kind(**flags))


@pytest.mark.parametrize("case", CASES)
def test_a_network_gives_the_numbers_of_the_authors_code(case):
    with torch.no_grad():
        found = built(case)(fed(), SIGMAS)
    torch.testing.assert_close(found.flatten()[::191], torch.tensor(GOLDEN[case]), rtol=0, atol=2e-6)


def saved(case: str, path, **notes: str) -> str:
    state = {f"model.{name}": tensor.clone() for name, tensor in built(case).state_dict().items()}
    save_file(state, path, notes or None)
    return str(path)


@pytest.mark.parametrize("case", CASES)
def test_flags_are_read_off_the_weights(case, tmp_path):
    network = built(case)
    assert edm_network(network.state_dict()) is CASES[case][0]
    assert {"kind": network.kind, "dropout": 0.0} | edm_flags(network.state_dict()) == network.flags


@pytest.mark.parametrize("case", CASES)
def test_the_prior_has_the_preconditioning_of_the_paper(case, tmp_path):
    """D(x; σ) = c_skip x + c_out F(c_in x, c_noise) (Karras et al. 2022, Eq. 7 and Table 1), in NumPy around the network."""
    prior = load_prior(saved(case, tmp_path / "x.safetensors", preconditioning="EDMPrecond", sigma_data="0.6"))
    prior.clip, x, d = False, fed().numpy().astype(np.float64), 0.6
    for sigma in (0.002, 0.3, 2.0, 80.0):
        c_skip, c_out = d**2 / (sigma**2 + d**2), sigma * d / np.sqrt(sigma**2 + d**2)
        c_in, c_noise = 1 / np.sqrt(d**2 + sigma**2), np.log(sigma) / 4
        with torch.no_grad():
            output = built(case)(torch.from_numpy(c_in * x).float(), torch.full((2,), c_noise))
            found = Denoiser(prior)(fed(), prior.schedule.at(sigma)).x0
        np.testing.assert_allclose(found.numpy(), c_skip * x + c_out * output.numpy(), rtol=1e-5, atol=1e-5)


def test_the_data_s_deviation_is_the_argument_then_the_file_s_then_one_half(tmp_path):
    noted = saved("ddpm++", tmp_path / "noted.safetensors", sigma_data="0.6")
    silent = saved("ddpm++", tmp_path / "silent.safetensors")
    found = [from_edm(noted, data_std=0.7), from_edm(noted), from_edm(silent)]
    assert [prior.preconditioning.data_std for prior in found] == [0.7, 0.6, 0.5]


def test_it_comes_back_from_a_card(tmp_path):
    """What train.py would export of it."""
    import yaml

    prior = load_prior(saved("ncsn++", tmp_path / "x.safetensors"))
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(prior.describe()))
    save_file(prior.network.state_dict(), tmp_path / "weights.safetensors")
    back = from_folder(str(tmp_path))
    level = prior.schedule.at(1.0)
    assert torch.equal(Denoiser(back)(fed(), level).x0, Denoiser(prior)(fed(), level).x0)


def test_a_pickle_is_refused_and_the_converter_named(tmp_path):
    (tmp_path / "edm.pkl").write_bytes(b"\x80\x04}.")
    with pytest.raises(ValueError, match=r"run code of their authors .*checkpoints convert .*edm\.pkl .*edm\.safetensors"):
        load_prior(str(tmp_path / "edm.pkl"))


WRONG = [
    ({"preconditioning": "VPPrecond"}, {}, "has the preconditioning 'VPPrecond', and EDMPrecond alone is supported"),
    ({}, {"model.map_label.weight": torch.ones(2, 2)}, "class-conditional"),
    ({}, {"model.enc.8x8_aux_skip.weight": torch.ones(2, 2)}, "kind 'skip' is not supported"),
    ({}, {"model.other": torch.ones(2)}, "1 left over, first other"),
]


@pytest.mark.parametrize(("notes", "more", "message"), WRONG, ids=lambda part: str(part)[:30])
def test_what_is_not_supported_is_named(tmp_path, notes, more, message):
    state = {f"model.{name}": tensor.clone() for name, tensor in built("ddpm++").state_dict().items()} | more
    save_file(state, tmp_path / "x.safetensors", notes or None)
    with pytest.raises(ValueError, match=message):
        load_prior(str(tmp_path / "x.safetensors"))
