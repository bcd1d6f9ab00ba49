"""Cards of priors: a trained prior is read back bit for bit from its folder, its checkpoint, or a checkpoint of other software."""

from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from misfortune import Mischief, break_writing
from safetensors.torch import load_file
from tiny_training import FLAGS, Batches, Keep, batches, fit, images, tiny_prior, training_of, weights
from torch import nn

from diffusion_priors.diffusion.checkpoints import Checkpoint, load_strictly
from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.networks.unet import UNet
from diffusion_priors.diffusion.preconditioning import X0, Eps, Score, V
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.folder import from_folder
from diffusion_priors.diffusion.priors.training import from_training
from diffusion_priors.diffusion.schedules import Betas, Cosine, Linear
from diffusion_priors.training.callbacks import average
from diffusion_priors.training.export import Export

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


def nothing(prior: Prior) -> dict[str, float]:
    return {}


# Exported and read again


@pytest.mark.parametrize("half", [False, True], ids=["float32", "half"])
@pytest.mark.parametrize(("network", "schedule", "kind", "pixel_range"), priors())
def test_an_exported_prior_is_the_same_denoiser(network, schedule, kind, pixel_range, half, tmp_path):
    prior = tiny_prior(NETWORKS[network], SCHEDULES[schedule], kind(), pixel_range)
    Export(half=half)(tmp_path, prior, {}, nothing)
    if half:
        with torch.no_grad():
            for parameter in prior.network.parameters():
                parameter.copy_(torch.from_numpy(parameter.numpy().astype(np.float16).astype(np.float32)))
    found = from_folder(str(tmp_path))
    assert torch.equal(weights(found.network), weights(prior.network))
    assert all(parameter.dtype == torch.float32 for parameter in found.network.parameters())
    assert_same_denoiser(found, prior)


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


def test_the_file_on_disk_is_half_the_size(tmp_path):
    prior = tiny_prior()
    for half, dtype in ((False, torch.float32), (True, torch.float16)):
        Export(half=half)(tmp_path / str(half), prior, {}, nothing)
        assert {tensor.dtype for tensor in load_file(tmp_path / str(half) / "weights.safetensors").values()} == {dtype}


@pytest.mark.parametrize("half", [False, True])
def test_the_card_says_what_was_trained(half, tmp_path):
    """The card holds facts of the run, the texts of the caller, and the validation of each precision with the weights of that precision."""
    prior = tiny_prior({"learn_sigma": True}, Cosine(30), V(), (0.0, 1.0))
    texts = {"name": "tests", "summary": "noise of a ünit test", "limits": "all", "licence": "CC0"}
    training = {"steps": 3, "weighting": "MinSNR"}

    def measure(one: Prior) -> dict[str, float]:
        assert one.schedule is prior.schedule and not one.network.out[2].weight.isnan().any()
        return {"sum": weights(one.network).double().sum().item()}

    exact = weights(prior.network).numpy()
    card = Export(half, data="sixteen squares", **texts)(tmp_path, prior, training, measure)
    written = yaml.safe_load((tmp_path / "card.yaml").read_text(encoding="utf-8"))
    assert written == card
    assert {key: written[key] for key in texts} == texts
    assert written["training"] == {"data": "sixteen squares"} | training
    assert written["parameters"] == sum(tensor.numel() for tensor in load_file(tmp_path / "weights.safetensors").values())
    values = {"float32": {"sum": exact.astype(np.float64).sum()}}
    if half:
        values["half"] = {"sum": exact.astype(np.float16).astype(np.float64).sum()}
    assert written["validation"].keys() == values.keys()
    for precision, expected in values.items():
        assert written["validation"][precision]["sum"] == pytest.approx(expected["sum"], rel=1e-12)
    assert np.array_equal(weights(prior.network).numpy(), exact)  # exporting does not change the prior
    assert ("half" in written["weights"]) is half
    assert {key: written[key] for key in prior.describe()} == prior.describe()
    assert written["schedule"] == {"kind": "cosine", "steps": 30, "s": 0.008, "max_beta": 0.999}
    assert (written["preconditioning"], written["pixel_range"], written["size"], written["channels"]) == ("v", [0.0, 1.0], [16, 16], 3)


@pytest.mark.parametrize("failing", ["weights.safetensors", "card.yaml"])
@pytest.mark.parametrize("before", [False, True], ids=["new", "over an old one"])
@pytest.mark.parametrize("how", ["write", "rename"])
def test_exported_files_are_complete_or_absent(how, before, failing, tmp_path, monkeypatch):
    folder, old, new = tmp_path / "prior", tiny_prior(seed=1), tiny_prior(seed=2)
    if before:
        Export()(folder, old, {"run": "old"}, nothing)
    kept = {path.name: path.read_bytes() for path in folder.iterdir()} if before else {}
    break_writing(monkeypatch, failing, how)
    with pytest.raises(OSError, match=rf"cannot write .*{failing}: .*no room.*; make room"):
        Export()(folder, new, {"run": "new"}, nothing)
    monkeypatch.undo()

    assert sorted(path.name for path in folder.iterdir()) == sorted(
        {*kept} | ({"weights.safetensors"} if failing == "card.yaml" else set())
    )
    for name, content in kept.items():
        assert ((folder / name).read_bytes() == content) is (name == failing or failing == "weights.safetensors")
    if before:  # either prior is right, but all its tensors must be of one run
        found = weights(from_folder(str(folder)).network)
        assert torch.equal(found, weights((old if failing == "weights.safetensors" else new).network))
    else:
        with pytest.raises(FileNotFoundError, match="is missing"):
            from_folder(str(folder))
    Export()(folder, new, {"run": "again"}, nothing)
    assert torch.equal(weights(from_folder(str(folder)).network), weights(new.network))


# A checkpoint of training


class Seen(pl.Callback):
    """Keeps the denoiser with averaged weights after each step, before Lightning restores the current weights."""

    def __init__(self) -> None:
        self.denoisers = []

    def on_validation_epoch_end(self, trainer, pl_module) -> None:
        self.denoisers.append(pl_module.denoiser())


TRAINED = {
    "colour": ({}, Linear(10), Eps(), (-1.0, 1.0)),
    "grey with learned variance": ({"in_channels": 1, "learn_sigma": True}, Cosine(10), V(), (0.0, 1.0)),
    "betas": ({"use_scale_shift_norm": False}, Betas([0.1, 0.3, 0.6] * 4), Score(), (-0.5, 0.5)),
}


@pytest.mark.parametrize("kind", TRAINED)
def test_a_checkpoint_of_training_is_its_averaged_prior(kind, tmp_path):
    prior, seen, path = tiny_prior(*TRAINED[kind]), Seen(), tmp_path / "step.ckpt"
    module = training_of(prior, steps=4)
    data = Batches(batches(4, channels=prior.channels))
    fit(module, data, [seen, average(0.7), Keep(path, 2)], validate_every=1, clip=1.0)
    expected = seen.denoisers[1]
    assert not torch.equal(weights(expected), weights(seen.denoisers[2]))

    found = from_training(str(path))
    assert torch.equal(weights(found.network), weights(expected))
    assert_same_denoiser(found, prior.with_network(expected.network))
    assert type(found.preconditioning) is type(prior.preconditioning)

    network = UNet(**prior.network.flags)
    Checkpoint(path=str(path)).load_into(network)
    assert torch.equal(weights(network), weights(expected))


def test_the_caller_may_change_size_and_clip(tmp_path):
    prior, path = tiny_prior(), tmp_path / "step.ckpt"
    torch.save({"prior": prior.describe(), "state_dict": {f"network.{k}": v for k, v in prior.network.state_dict().items()}}, path)
    assert (from_training(str(path)).size, from_training(str(path)).clip) == ((16, 16), True)
    other = from_training(str(path), size=(32, 8), clip=False)
    assert (other.size, other.clip) == ((32, 8), False)
    with pytest.raises(ValueError, match="two positive numbers"):
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
        r"somewhere\.Net, which is not built .*prior=custom prior\.network\._target_=somewhere\.Net",
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
        Export()(tmp_path, prior, {}, nothing)
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
    card = Prior(nn.Conv2d(3, 3, 1), Linear(5), X0(), (8, 8)).describe()
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
    Export()(tmp_path, tiny_prior(), {}, nothing)
    (tmp_path / "card.yaml").write_text(f"network: !!python/object/apply:os.mkdir [{tmp_path / 'made'}]\n")
    with pytest.raises(ValueError, match=r"card\.yaml is no prior card"):
        from_folder(str(tmp_path))
    assert not (tmp_path / "made").exists()
