"""Cards of priors: a trained prior is read back bit for bit from its folder, its checkpoint, or a checkpoint of other software."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from misfortune import Mischief
from tiny_prior import FLAGS, NETWORKS, RANGES, SCHEDULES, priors, tiny_prior, weights
from torch import nn

from diffusion_priors.diffusion.checkpoints import Checkpoint, load_strictly
from diffusion_priors.diffusion.networks.unet import UNet
from diffusion_priors.diffusion.preconditioning import X0
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.folder import from_folder
from diffusion_priors.diffusion.priors.training import from_training
from diffusion_priors.diffusion.schedules import Betas, Linear
from diffusion_priors.training.export import Export


def export(prior: Prior, folder: Path) -> None:
    """Write the folder of a prior."""
    Export()(folder, prior, {}, lambda prior: {})


# Descriptions


@pytest.mark.parametrize(("network", "schedule", "kind", "pixel_range"), priors())
def test_a_prior_describes_itself_in_plain_values(network, schedule, kind, pixel_range):
    """The description fits into a YAML file, and a network built from it has the same description."""
    prior = tiny_prior(NETWORKS[network], SCHEDULES[schedule], kind(), pixel_range)
    card = prior.describe()
    assert yaml.safe_load(yaml.safe_dump(card)) == card
    assert set(card) == {"network", "schedule", "preconditioning", "size", "channels", "pixel_range"}
    again = UNet(**card["network"])
    assert again.flags == prior.network.flags == card["network"]
    assert card["network"] | {name: list(v) if isinstance(v, tuple) else v for name, v in NETWORKS[network].items()} == card["network"]


@pytest.mark.parametrize("pixel_range", [*RANGES, (0.1, 0.7), (-1.3, 1.1)])
def test_a_card_holds_the_pixel_range_without_rounding(pixel_range):
    found = tiny_prior(pixel_range=pixel_range).describe()["pixel_range"]
    assert tuple(found) == pixel_range


def test_numpy_s_betas_become_plain_numbers(tmp_path):
    """NumPy numbers would be pickled code in a checkpoint, and YAML cannot write them."""
    card = tiny_prior(schedule=Betas(list(np.linspace(0.01, 0.3, 7)))).describe()
    torch.save({"prior": card}, tmp_path / "card.ckpt")
    assert torch.load(tmp_path / "card.ckpt", weights_only=True)["prior"] == yaml.safe_load(yaml.safe_dump(card)) == card


# Checkpoints of training


def test_the_caller_may_change_size_and_clip(tmp_path):
    prior, path = tiny_prior(), tmp_path / "step.ckpt"
    torch.save({"prior": prior.describe(), "state_dict": {f"network.{k}": v for k, v in prior.network.state_dict().items()}}, path)
    assert (from_training(str(path)).size, from_training(str(path)).clip) == ((16, 16), True)
    other = from_training(str(path), size=(32, 8), clip=False)
    assert (other.size, other.clip) == ((32, 8), False)
    with pytest.raises(ValueError, match="two positive whole numbers"):
        from_training(str(path), size=(32, 0))


def test_a_checkpoint_without_a_card_is_refused_with_the_overrides_that_load_it(tmp_path):
    path = tmp_path / "other.ckpt"
    torch.save({"state_dict": tiny_prior().network.state_dict()}, path)
    with pytest.raises(ValueError, match=r"other\.ckpt carries no card .*prior=guided_diffusion prior\.checkpoint\.path="):
        from_training(str(path))
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*absent\.ckpt; set prior\.path"):
        from_training(str(tmp_path / "absent.ckpt"))


WRONG = {
    "an unknown flag": ("network", FLAGS | {"class_cond": True}, "class_cond"),
    "a class": (
        "network",
        {"class": "somewhere.Net"},
        r"its network is of the class 'somewhere\.Net', which is no part of this project, .*use prior=custom with the class of",
    ),
    "an unknown schedule": ("schedule", {"kind": "karras", "steps": 10}, "karras"),
    "an unknown argument": ("schedule", {"kind": "betas", "betas": [0.1], "sigma_max": 80}, "sigma_max"),
    "betas out of bounds": ("schedule", {"kind": "betas", "betas": [0.1, 1.5]}, "betas must be numbers between 0 and 1"),
    "an unknown meaning": ("preconditioning", "velocity", "velocity"),
    "a list": ("network", [1, 2], "no prior card"),
    "an empty range": ("pixel_range", [1.0, 1.0], "pixel_range must be"),
    "two channels": ("channels", 2, "1 or 3 channels, got 2"),
}


@pytest.mark.parametrize("source", ["folder", "training"])
@pytest.mark.parametrize("wrong", WRONG)
def test_an_invalid_card_is_refused_in_one_line(wrong, source, tmp_path):
    key, value, message = WRONG[wrong]
    prior = tiny_prior()
    if source == "folder":
        export(prior, tmp_path)
        (tmp_path / "card.yaml").write_text(yaml.safe_dump(prior.describe() | {key: value}))
        load, path, name = from_folder, tmp_path, "card.yaml"
    else:
        name, path = "step.ckpt", tmp_path / "step.ckpt"
        load = from_training
        torch.save({"prior": prior.describe() | {key: value}, "state_dict": prior.network.state_dict()}, path)
    with pytest.raises(ValueError, match=message) as caught:
        load(str(path))
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_the_card_names_the_class_of_a_custom_network():
    """The error on loading it names the class to build."""
    card = Prior(nn.Conv2d(3, 3, 1), Linear(5, 1e-4, 2e-2), X0(), (8, 8)).describe()
    assert card["network"] == {"class": "torch.nn.modules.conv.Conv2d"}


# Checkpoints of other software


def prefixed(**modules: nn.Module) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{name}": tensor for prefix, module in modules.items() for name, tensor in module.state_dict().items()}


def saved(state: dict[str, torch.Tensor], path: Path) -> Checkpoint:
    torch.save({"epoch": 3, "state_dict": state, "optimizer_states": [{"lr": 0.1}], "callbacks": {}}, path)
    return Checkpoint(path=str(path))


def unet(seed: int) -> nn.Module:
    return tiny_prior(seed=seed).network


@pytest.mark.parametrize("prefix", ["model", "network", "diffusion_priors.diffusion.net", "module.model", "ema_model", "ema.module"])
def test_the_network_is_found_under_a_prefix(prefix, tmp_path):
    """The tensors of a loss and of half a network next to it are ignored."""
    state = prefixed(**{"loss": nn.Linear(3, 3), prefix: unet(1)})
    state |= {f"half.{name}": tensor for name, tensor in list(unet(2).state_dict().items())[::2]}
    found = unet(0)
    saved(state, tmp_path / "other.ckpt").load_into(found)
    assert torch.equal(weights(found), weights(unet(1)))


@pytest.mark.parametrize("averaged", ["ema_model", "ema", "model_ema.module", "averaged_model"])
@pytest.mark.parametrize("first", [True, False])
def test_averaged_weights_are_preferred(first, averaged, tmp_path):
    networks = {"model": unet(1), averaged: unet(2)}
    found = unet(0)
    saved(prefixed(**dict(sorted(networks.items(), reverse=first))), tmp_path / "other.ckpt").load_into(found)
    assert torch.equal(weights(found), weights(unet(2)))


@pytest.mark.parametrize("names", [("student", "teacher"), ("ema_fast", "ema_slow"), ("ema_fast", "model", "ema_slow")])
def test_several_networks_in_one_checkpoint_are_refused(names, tmp_path):
    found = unet(0)
    named = " and ".join(rf"{name}\." for name in names if "ema" in name or len(names) == 2)
    with pytest.raises(ValueError, match=rf"other\.ckpt holds the network 2 times, under {named}; save one of them") as caught:
        saved(prefixed(**{name: unet(i) for i, name in enumerate(names, 1)}), tmp_path / "other.ckpt").load_into(found)
    assert "\n" not in str(caught.value)
    assert torch.equal(weights(found), weights(unet(0)))


def test_a_tensor_of_another_shape_is_refused_by_its_name_without_the_prefix():
    state = prefixed(model=unet(1))
    state["model.out.2.bias"] = torch.ones(6)
    with pytest.raises(ValueError, match=r"out\.2\.bias should be \(3,\) and is \(6,\)"):
        load_strictly(unet(0), state, Path("other.ckpt"))


@pytest.mark.parametrize("absent", ["time_embed.0.weight", "out.2.bias"])
def test_a_network_with_a_missing_tensor_is_not_found(absent):
    state = prefixed(model=unet(1))
    del state[f"model.{absent}"]
    found = unet(0)
    with pytest.raises(ValueError, match="does not fit the network"):
        load_strictly(found, state, Path("other.ckpt"))
    assert torch.equal(weights(found), weights(unet(0)))


@pytest.mark.parametrize("place", ["next to both", "in the card", "in the weights"])
def test_a_checkpoint_with_code_is_refused_and_not_run(place, tmp_path):
    prior, evil = tiny_prior(), Mischief(tmp_path / "made")
    content = {"prior": prior.describe(), "state_dict": prefixed(network=prior.network)}
    {"next to both": content, "in the card": content["prior"], "in the weights": content["state_dict"]}[place]["extra"] = evil
    torch.save(content, tmp_path / "evil.ckpt")
    for load in (
        lambda: from_training(str(tmp_path / "evil.ckpt")),
        lambda: Checkpoint(path=str(tmp_path / "evil.ckpt")).load_into(unet(0)),
    ):
        with pytest.raises(ValueError, match=r"evil\.ckpt holds pickled code .* none of it was run") as caught:
            load()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "made").exists()
    torch.load(tmp_path / "evil.ckpt", weights_only=False)
    assert (tmp_path / "made").exists()  # the code works where it is run


def test_a_card_with_code_is_refused_and_not_run(tmp_path):
    export(tiny_prior(), tmp_path)
    (tmp_path / "card.yaml").write_text(f"network: !!python/object/apply:os.mkdir [{tmp_path / 'made'}]\n")
    with pytest.raises(ValueError, match=r"card\.yaml is no prior card"):
        from_folder(str(tmp_path))
    assert not (tmp_path / "made").exists()
