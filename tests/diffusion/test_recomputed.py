"""Blocks computed again in the backward pass: the same numbers, bit by bit, from fewer tensors kept."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from configured import make_operator, make_problem, make_solver
from ddpm_names import DDPM
from test_edm_priors import CASES
from tiny_prior import images, scrambled, tiny_prior
from torch import nn

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.grids import Linspace
from diffusion_priors.diffusion.networks.ddpm import DDPMUNet
from diffusion_priors.diffusion.networks.diffusers_unet import DiffusersUNet
from diffusion_priors.diffusion.networks.edm import SongUNet
from diffusion_priors.diffusion.networks.unet import UNet
from diffusion_priors.diffusion.preconditioning import Eps
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.schedules import Linear
from diffusion_priors.diffusion.tiles import Overlapping
from diffusion_priors.runs.memory import activation_bytes

if TYPE_CHECKING:
    from diffusion_priors.runs.trainer import TrainerSettings


def diffusers_unet() -> nn.Module:
    pytest.importorskip("diffusers")
    return DiffusersUNet({key: list(value) if isinstance(value, tuple) else value for key, value in DDPM.items()})


ATTENDED = {"image_size": 16, "num_channels": 32, "channel_mult": (1, 2), "attention_resolutions": (8,), "num_head_channels": 16}
NETWORKS = {
    "unet": lambda: UNet(**ATTENDED),
    "convolutions that resample": lambda: UNet(**ATTENDED, resblock_updown=False, num_res_blocks=2),
    "ddpm": lambda: DDPMUNet(**{key: value for key, value in ATTENDED.items() if key != "num_head_channels"}),
    "diffusers": diffusers_unet,
    **{name: lambda kind=kind, flags=flags: kind(**flags) for name, (kind, flags) in CASES.items()},
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return scrambled(NETWORKS[name]())


def settings(checkpointing: bool) -> TrainerSettings:
    from diffusion_priors.runs.trainer import TrainerSettings  # imports Lightning

    return TrainerSettings("cpu", checkpointing=checkpointing)


def prepared(network: nn.Module, checkpointing: bool) -> nn.Module:
    settings(checkpointing).prepare(network)
    return network


@every_network
def test_the_estimate_and_several_pull_backs_are_the_same_bit_by_bit(name):
    x, v = 2.0 * images(2), images(2, seed=1)
    found = []
    for checkpointing in (False, True):
        denoiser = Denoiser(Prior(prepared(made(name), checkpointing=checkpointing), Linear(), Eps(), (16, 16)))
        estimate, pull_back = denoiser.linearise(x, Linear().table[400])
        found.append([estimate.x0, pull_back(v, again=True), pull_back(2.0 * v.flip(0), again=True), pull_back(v)])
        assert (denoiser.forwards, denoiser.vjps) == (1, 3)
    plain, recomputed = found
    assert all(torch.equal(a, b) for a, b in zip(plain, recomputed, strict=True))
    assert plain[1].abs().max() > 0 and not torch.equal(plain[1], plain[2])


SHARES = {"diffusers": 0.75}
"""Of the library's blocks, those with attention are not computed again as a whole."""


@every_network
def test_less_is_kept_for_the_backward_pass(name):
    plain, recomputed = made(name), prepared(made(name), checkpointing=True)
    kept = [activation_bytes(network.requires_grad_(True), (3, 16, 16)) for network in (plain, recomputed)]
    assert kept[1] < SHARES.get(name, 0.35) * kept[0]


@pytest.mark.parametrize("kind", [UNet, SongUNet])
def test_training_with_dropout_has_the_same_gradients(kind):
    flags = ATTENDED if kind is UNet else CASES["ncsn++"][1]
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        network = prepared(scrambled(kind(**flags | {"dropout": 0.3})), checkpointing).train()
        network(images(2), torch.tensor([3.0, 700.0])).square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters() if parameter.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 10
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("name", ["dps", "tmpd"])
def test_a_solver_restores_the_same_image(name, tmp_path):
    """With tiles, whose network holds the prior's."""
    restored = []
    for checkpointing in (False, True):
        prior = Overlapping((16, 16), 0)(Prior(tiny_prior().network.double(), Linear(), Eps(), (8, 8)))
        prepared(prior.network, checkpointing=checkpointing)
        problem = replace(make_problem(make_operator("inpaint_box", tmp_path), [0, 1]), denoiser=Denoiser(prior))
        solver = make_solver(name)
        restored.append(solver.solve(problem, solver.plan(Linspace(2), Linear())).x0)
    assert torch.equal(*restored)


def test_nothing_is_recomputed_without_a_gradient():
    network = prepared(made("unet"), checkpointing=True)
    calls = []
    network.middle_block.register_forward_pre_hook(lambda *_: calls.append(0))
    denoiser = Denoiser(Prior(network, Linear(), Eps(), (16, 16)))
    with torch.no_grad():
        denoiser(images(1), Linear().table[400])
    assert len(calls) == 1
    _, pull_back = denoiser.linearise(images(1), Linear().table[400])
    pull_back(images(1), again=True)
    pull_back(images(1))
    assert len(calls) == 4  # one forward pass, and one again for each product


def test_a_network_that_cannot_is_refused_in_one_line():
    network = nn.Sequential(nn.Conv2d(3, 3, 1))
    with pytest.raises(ValueError, match=r"\(Sequential\) has no method enable_gradient_checkpointing; set trainer.checkpointing=false$"):
        settings(True).recompute(network)
    settings(False).recompute(network)
