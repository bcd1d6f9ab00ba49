"""Export of a trained prior: weights and card are the trained denoiser, bit for bit, and are written completely or not at all."""

import numpy as np
import pytest
import torch
import yaml
from lazy import Lazy
from misfortune import break_writing
from safetensors.torch import load_file
from tiny_prior import NETWORKS, SCHEDULES, assert_same_denoiser, priors, tiny_prior, weights

from diffusion_priors.diffusion.checkpoints import Checkpoint
from diffusion_priors.diffusion.networks.unet import UNet
from diffusion_priors.diffusion.preconditioning import Eps, Score, V
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.folder import from_folder
from diffusion_priors.diffusion.priors.training import from_training
from diffusion_priors.diffusion.schedules import Betas, Cosine, Linear
from diffusion_priors.training.export import Export

tiny = Lazy("tiny_training")
recorders = Lazy("training_callbacks")
callbacks = Lazy("diffusion_priors.training.callbacks")


def nothing(prior: Prior) -> dict[str, float]:
    return {}


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


# Checkpoints


TRAINED = {
    "colour": ({}, Linear(10, 1e-4, 2e-2), Eps(), (-1.0, 1.0)),
    "grey with learned variance": ({"in_channels": 1, "learn_sigma": True}, Cosine(10), V(), (0.0, 1.0)),
    "betas": ({"use_scale_shift_norm": False}, Betas([0.1, 0.3, 0.6] * 4), Score(), (-0.5, 0.5)),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", TRAINED)
def test_a_checkpoint_of_training_is_its_averaged_prior(kind, tmp_path):
    prior, seen, path = tiny_prior(*TRAINED[kind]), recorders.KeepDenoisers(), tmp_path / "step.ckpt"
    module = tiny.training_of(prior, steps=4)
    data = tiny.Batches(tiny.batches(4, channels=prior.channels))
    tiny.fit(module, data, [seen, callbacks.average(0.7), tiny.Keep(path, 2)], validate_every=1, clip=1.0)
    expected = seen.denoisers[1]
    assert not torch.equal(weights(expected), weights(seen.denoisers[2]))

    found = from_training(str(path))
    assert torch.equal(weights(found.network), weights(expected))
    assert_same_denoiser(found, prior.with_network(expected.network))
    assert type(found.preconditioning) is type(prior.preconditioning)

    network = UNet(**prior.network.flags)
    Checkpoint(path=str(path)).load_into(network)
    assert torch.equal(weights(network), weights(expected))
