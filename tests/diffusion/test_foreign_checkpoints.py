"""Checkpoints of other projects: DDPM in PyTorch against diffusers' network, InverseBench, Lightning, and what a path is by its names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ddpm_names import DDPM, in_the_names_of_ddpm
from safetensors.torch import save_file
from tiny_prior import scrambled
from torch import Tensor

from diffusion_priors.api.parts import load_prior
from diffusion_priors.conf import PROJECT
from diffusion_priors.conf.command import prior_from_file
from diffusion_priors.diffusion.networks.ddpm import DDPMUNet
from diffusion_priors.diffusion.networks.shapes import unet_flags
from diffusion_priors.diffusion.networks.unet import UNet
from diffusion_priors.diffusion.preconditioning import Eps, V
from diffusion_priors.diffusion.priors.ddpm import from_ddpm
from diffusion_priors.diffusion.priors.inverse_bench import from_inverse_bench
from diffusion_priors.diffusion.priors.lightning import from_lightning
from diffusion_priors.diffusion.schedules import Cosine, Linear


@pytest.fixture(scope="module")
def ddpm():
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(**DDPM).eval()
    return network, in_the_names_of_ddpm(network.state_dict())


def test_the_network_of_ddpm_is_that_of_diffusers_in_other_names(ddpm, tmp_path):
    network, state = ddpm
    torch.save(state, tmp_path / "model.ckpt")
    prior = load_prior(str(tmp_path / "model.ckpt"))
    assert (prior.size, prior.channels, type(prior.network)) == ((32, 32), 3, DDPMUNet)
    assert prior.schedule.table == Linear().table
    x, t = torch.randn(2, 3, 32, 32), torch.tensor([2.0, 700.0])
    with torch.no_grad():
        torch.testing.assert_close(prior.network.eval()(x, t), network(x, t).sample, rtol=1e-5, atol=1e-5)
    assert from_ddpm(str(tmp_path / "model.ckpt"), Cosine(), size=(16, 32)).network.flags["attention_resolutions"] == [8]


def test_a_tensor_too_many_or_too_few_is_named(ddpm, tmp_path):
    _, state = ddpm
    for name, changed in (
        ("more", state | {"extra.weight": torch.ones(1)}),
        ("fewer", {k: v for k, v in state.items() if "mid.attn_1.k" not in k}),
    ):
        torch.save(changed, tmp_path / name)
        with pytest.raises(
            ValueError, match=r"1 left over, first extra\.weight" if name == "more" else r"2 missing, first middle_block\.1\.qkv"
        ):
            from_ddpm(str(tmp_path / name), Linear())


FLAGS = [
    {"image_size": 64, "num_channels": 32, "channel_mult": [1, 2, 3, 4], "attention_resolutions": [16, 8], "num_head_channels": 32},
    {
        "image_size": 32,
        "num_channels": 32,
        "channel_mult": [1, 2, 2, 2],
        "num_res_blocks": 3,
        "resblock_updown": False,
        "num_head_channels": 32,
    },
    {
        "image_size": 16,
        "num_channels": 32,
        "channel_mult": [1.5, 1],
        "attention_resolutions": [],
        "learn_sigma": False,
        "num_head_channels": 16,
    },
    {"image_size": 16, "num_channels": 32, "channel_mult": [1], "use_scale_shift_norm": False, "in_channels": 1, "num_head_channels": 32},
]


@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: str(flags["channel_mult"]))
def test_flags_of_guided_diffusion_are_read_off_the_shapes(flags):
    with torch.device("meta"):
        network = UNet(**flags | {"max_groups": 16})
    found = unet_flags(network.state_dict(), flags["image_size"], flags["num_head_channels"])
    assert found == {key: network.flags[key] for key in found}
    if len(flags["channel_mult"]) == 4:
        assert unet_flags(network.state_dict())["image_size"] == flags["image_size"]
    else:
        with pytest.raises(ValueError, match=r"the size of the images is not known for channel_mult=.*set prior\.size"):
            unet_flags(network.state_dict())


GUIDED = {"image_size": 32, "num_channels": 32, "channel_mult": [1, 2, 2, 2], "attention_resolutions": [8], "num_head_channels": 64}


@pytest.fixture(scope="module")
def guided() -> UNet:
    return scrambled(UNet(**GUIDED)).eval()


def outputs(network) -> Tensor:
    with torch.no_grad():
        return network.eval()(torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32), torch.tensor([5.0]))


def by_command(*overrides: str):
    """The prior that a script builds."""
    import hydra

    from diffusion_priors.conf.build import build

    with hydra.initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        return build(hydra.compose("sample", overrides=[word for given in overrides for word in prior_from_file(given)]).prior)


def test_the_flags_of_a_file_of_guided_diffusion_are_found_by_the_command_and_in_python(guided, tmp_path):
    """Those that are given come first."""
    path = tmp_path / "guided.pt"
    torch.save(guided.state_dict(), path)
    x = outputs(guided)
    for prior in (load_prior(path), by_command(f"prior={path}")):
        assert torch.equal(outputs(prior.network), x) and (prior.size, prior.channels) == ((32, 32), 3)
        assert prior.network.flags == guided.flags
    halved = load_prior(path, network={"num_head_channels": 32}), by_command(f"prior={path}", "prior.network.num_head_channels=32")
    assert torch.equal(*(outputs(prior.network) for prior in halved)) and not torch.equal(outputs(halved[0].network), x)
    torch.save({"ema": {f"net.{name}": tensor for name, tensor in guided.state_dict().items()}, "step": 3}, path)
    inside = load_prior(path, checkpoint={"key": "ema"}, size=(32, 64)), by_command(f"prior={path}", "prior.checkpoint.key=ema")
    assert [prior.size for prior in inside] == [(32, 64), (32, 32)]
    assert all(torch.equal(outputs(prior.network), x) for prior in inside)
    with pytest.raises(ValueError, match=r"guided\.pt does not fit the network: .*; check the network's flags"):
        load_prior(path, checkpoint={"key": "ema"}, network={"num_channels": 64})
    torch.save({"other": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"guided\.pt: it holds no network of .*begin with other; for your own network choose prior"):
        load_prior(path)


@pytest.mark.parametrize("entry", ["ema", "net"])
def test_a_file_of_inverse_bench(guided, tmp_path, entry):
    torch.save({entry: {f"model.{name}": tensor for name, tensor in guided.state_dict().items()}}, tmp_path / "ffhq256.pt")
    prior = load_prior(str(tmp_path / "ffhq256.pt"))
    assert torch.equal(outputs(prior.network), outputs(guided)) and prior.size == (32, 32)
    with pytest.raises(ValueError, match="has no entry ema or net with tensors"):
        torch.save({"other": 3}, tmp_path / "other.pt")
        from_inverse_bench(str(tmp_path / "other.pt"), Linear())


def lightning(path: Path, state: dict[str, Tensor], **more) -> str:
    torch.save({"pytorch-lightning_version": "2.5.0", "state_dict": state, "epoch": 3, "hyper_parameters": {"lr": 1e-4}} | more, path)
    return str(path)


def test_a_checkpoint_of_lightning_has_its_averaged_weights_read(guided, ddpm, tmp_path):
    plain = {f"net.{name}": torch.zeros_like(tensor) for name, tensor in guided.state_dict().items()}
    averaged = {f"ema_model.net.{name}": tensor for name, tensor in guided.state_dict().items()}
    path = lightning(tmp_path / "last.ckpt", plain | averaged | {"loss.weight": torch.ones(3)})
    assert torch.equal(outputs(load_prior(path).network), outputs(guided))
    prior = from_lightning(path, Cosine(), V(), pixel_range=(0.0, 1.0), clip=False)
    assert (type(prior.preconditioning), prior.pixel_range, prior.clip) == (V, (0.0, 1.0), False)
    path = lightning(tmp_path / "ddpm.ckpt", {f"model.{name}": tensor for name, tensor in ddpm[1].items()})
    torch.testing.assert_close(outputs(load_prior(path).network), outputs(Given(ddpm[0])), rtol=1e-5, atol=1e-5)


class Given(torch.nn.Module):
    def __init__(self, network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x, t):
        return self.network(x, t).sample


def test_a_checkpoint_of_lightning_with_another_network_is_refused(guided, tmp_path):
    path = lightning(tmp_path / "a.ckpt", {"encoder.weight": torch.ones(2, 2)})
    with pytest.raises(ValueError, match=r"no network of guided-diffusion, DDPM or EDM; its names begin with encoder\.weight"):
        load_prior(path)
    twice = {f"{part}.{name}": tensor for part in ("a", "b") for name, tensor in guided.state_dict().items()}
    with pytest.raises(ValueError, match=r"holds 2 networks, under a\. and b\."):
        from_lightning(lightning(tmp_path / "b.ckpt", twice), Linear(), Eps())


def test_what_a_path_is(guided, ddpm, tmp_path):
    """By names alone, whatever the ending."""
    state = dict(guided.state_dict())
    torch.save(state, tmp_path / "guided.pt")
    save_file({name: tensor.clone() for name, tensor in state.items()}, tmp_path / "guided.safetensors")
    torch.save(ddpm[1], tmp_path / "ddpm.pt", _use_new_zipfile_serialization=False)
    save_file({"enc.8x8_conv.weight": torch.ones(1)}, tmp_path / "edm.safetensors")
    (tmp_path / "edm.pkl").write_bytes(b"\x80\x04}.")
    lightning(tmp_path / "lightning.ckpt", state)
    lightning(tmp_path / "training.ckpt", state, prior={"network": {}})
    (tmp_path / "page.ckpt").write_text("<html>")
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    (tmp_path / "folder").mkdir()
    wanted = {
        "guided.pt": ("guided_diffusion", "prior.checkpoint.path"),
        "guided.safetensors": ("guided_diffusion", "prior.checkpoint.path"),
        "ddpm.pt": ("ddpm", "prior.path"),
        "edm.safetensors": ("edm", "prior.path"),
        "edm.pkl": ("edm", "prior.path"),
        "lightning.ckpt": ("lightning", "prior.path"),
        "training.ckpt": ("training", "prior.path"),
        "page.ckpt": ("training", "prior.path"),
        "pipeline": ("diffusers", "prior.path"),
        "folder": ("folder", "prior.path"),
    }
    for name, (option, key) in wanted.items():
        assert prior_from_file(f"prior={tmp_path / name}") == [f"prior={option}", f"{key}='{tmp_path / name}'"], name
