"""Priors: the bundled one against its card and its ancestor, folders and cards, bounds, and the probe."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import nn

from diffusion_priors.conf import PROJECT
from diffusion_priors.diffusion.checkpoints import Checkpoint, load_strictly
from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.image_random import image_generator
from diffusion_priors.diffusion.networks.unet import UNet
from diffusion_priors.diffusion.preconditioning import X0, Eps, Score, V
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.folder import from_folder
from diffusion_priors.diffusion.schedules import Cosine, Linear
from diffusion_priors.images.find import find_images
from diffusion_priors.images.fit import Crop
from diffusion_priors.images.io import read_image
from diffusion_priors.runs.weights import read_state_dict

FACES = PROJECT / "diffusion" / "weights" / "faces64"
SHARED = PROJECT.parent / "shared"
ORIGINAL, PORTRAITS = SHARED / "prior" / "faces64.pt", SHARED / "data" / "sfhq256"
SIZE = {"size": (8, 8)}


@pytest.fixture(scope="module")
def faces() -> Prior:
    return from_folder(str(FACES))


# The bundled prior


def test_the_card_counts_the_parameters_correctly(faces):
    card = yaml.safe_load((FACES / "card.yaml").read_text())
    assert sum(p.numel() for p in faces.network.parameters()) == card["parameters"] == 5_365_603
    assert len(faces.network.state_dict()) == 272


def portraits() -> list[tuple[str, torch.Tensor]]:
    """The first 48 portraits at 64 x 64, as prior_report takes them."""
    found = find_images(str(PORTRAITS))
    named = list(zip(found.ids, found.paths, strict=True))[:48]
    assert len(named) == 48
    return [(name, read_image(path, 3, (64, 64), Crop())) for name, path in named]


@pytest.mark.slow
@pytest.mark.skipif(not PORTRAITS.is_dir(), reason="the sfhq256 portraits are not next to the repository")
def test_the_bundled_prior_denoises_as_its_card_says(faces):
    """PSNR of the clamped x̂0 on [0, 1] images, by a formula of this test: the values of the card to two decimals."""
    card = yaml.safe_load((FACES / "card.yaml").read_text())
    images, denoiser = portraits(), Denoiser(faces)
    x0 = torch.stack([x for _, x in images])
    for t in (100, 500, 900):
        alpha_bar = np.prod(1.0 - np.linspace(1e-4, 2e-2, 1000)[: t + 1])
        draws = [image_generator(0, name, t, "denoising").standard_normal(x0.shape[1:], dtype=np.float32) for name, _ in images]
        x = float(alpha_bar**0.5) * x0 + float((1.0 - alpha_bar) ** 0.5) * torch.from_numpy(np.stack(draws))
        with torch.no_grad():
            found = torch.cat([denoiser(part, faces.image_schedule.table[t]).x0 for part in x.split(16)])
        error = ((found.clamp(-1, 1) - x0) / 2).square().mean(dim=(1, 2, 3))
        assert (-10 * error.log10()).mean().item() == pytest.approx(card["validation"]["sfhq"][t], abs=0.011)


@pytest.mark.slow
@pytest.mark.skipif(
    not (PORTRAITS.is_dir() and ORIGINAL.is_file()), reason="the original faces64.pt and the portraits are not next to the repository"
)
def test_the_bundled_prior_is_better_than_the_one_it_was_trained_from(faces):
    from diffusion_priors.training.validation import denoising_psnr  # loads Lightning

    original = from_folder(str(FACES))
    original.preconditioning = Eps()  # it predicted ε
    load_strictly(original.network, read_state_dict(ORIGINAL), ORIGINAL)
    levels = [faces.image_schedule.table[t] for t in (100, 500, 900)]
    before, after = (denoising_psnr(Denoiser(prior), levels, portraits()[:12]) for prior in (original, faces))
    assert all(b > a for a, b in zip(before, after, strict=True)), (before, after)


def test_the_yaml_of_the_bundled_prior_loads_its_folder(faces):
    built = instantiate(OmegaConf.load(PROJECT / "conf" / "prior" / "faces64.yaml"))
    assert (built.size, built.channels, built.clip, built.image_schedule.table) == (
        faces.size,
        faces.channels,
        faces.clip,
        faces.image_schedule.table,
    )
    assert all(torch.equal(a, b) for a, b in zip(built.network.parameters(), faces.network.parameters(), strict=True))


def test_the_bundled_prior_runs_at_another_size():
    prior = from_folder(str(FACES), size=(32, 48), clip=False)
    assert prior.size == (32, 48) and prior.clip is False
    assert prior.probe() is False


def test_a_size_that_the_network_cannot_halve_is_refused():
    with pytest.raises(ValueError, match="multiples of 8; got 60 x 64"):
        from_folder(str(FACES), size=(60, 64)).probe()


# Folders and cards


@pytest.fixture
def card() -> dict:
    """The card of a small network."""
    network = {"image_size": 8, "num_channels": 32, "channel_mult": [1], "attention_resolutions": [], "num_head_channels": 32}
    return {
        "network": network,
        "schedule": {"kind": "linear", "steps": 1000},
        "preconditioning": "eps",
        "size": [8, 8],
        "pixel_range": [-1, 1],
    }


def folder_with(card, path: Path, weights: bool = True) -> str:
    """A folder of a prior: this card, and weights that fit its network."""
    path.mkdir()
    (path / "card.yaml").write_bytes(card if isinstance(card, bytes) else yaml.safe_dump(card).encode())
    if weights:
        save_file(UNet(**card["network"]).state_dict(), path / "weights.safetensors")
    else:
        (path / "weights.safetensors").touch()
    return str(path)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"kind": "linear", "steps": 100, "beta_start": 0.001, "beta_end": 0.2}, Linear(100, 0.001, 0.2)),
        ({"kind": "cosine", "steps": 50, "s": 0.02}, Cosine(50, 0.02)),
    ],
    ids=["linear", "cosine"],
)
@pytest.mark.parametrize(("name", "kind"), [("eps", Eps), ("x0", X0), ("v", V), ("score", Score)])
def test_the_card_defines_what_the_weights_do_not(name, kind, schedule, expected, card, tmp_path):
    prior = from_folder(folder_with(card | {"schedule": schedule, "preconditioning": name, "pixel_range": [0, 1]}, tmp_path / "own"))
    assert type(prior.preconditioning) is kind
    assert prior.schedule.table == expected.table
    assert (prior.pixel_scale, prior.pixel_shift, prior.size) == (0.5, 0.5, (8, 8))
    assert prior.probe() is True  # the UNet's flags learn the variance unless the card says otherwise


def test_a_copy_of_the_default_folder_is_the_same_prior(tmp_path, faces):
    copy = shutil.copytree(FACES, tmp_path / "copy")
    copied = from_folder(str(copy))
    assert all(torch.equal(a, b) for a, b in zip(copied.network.parameters(), faces.network.parameters(), strict=True))


@pytest.mark.parametrize("absent", ["weights.safetensors", "card.yaml"])
def test_a_missing_file_is_named(absent, card, tmp_path):
    path = folder_with(card, tmp_path / "own", weights=False)
    (tmp_path / "own" / absent).unlink()
    with pytest.raises(FileNotFoundError, match=rf"no prior in .*own: {absent} is missing; set prior\.path"):
        from_folder(path)


@pytest.mark.parametrize("key", ["network", "schedule", "preconditioning", "size", "pixel_range"])
def test_a_card_without_a_key_is_refused(key, card, tmp_path):
    del card[key]
    with pytest.raises(ValueError, match=rf"card\.yaml is no prior card: .*{key}"):
        from_folder(folder_with(card, tmp_path / "own", weights=False))


@pytest.mark.parametrize(
    "text", [b"", b"- a\n- list\n", b"just words", b"a: [unclosed", b"schedule: 3\nnetwork: 4\n", b"\xff\x00"], ids=str
)
def test_a_broken_card_is_refused(text, tmp_path):
    with pytest.raises(ValueError, match=r"card\.yaml is no prior card"):
        from_folder(folder_with(text, tmp_path / "own", weights=False))


WRONG = {
    "schedule": {"kind": "karras"},
    "schedule without kind": {"steps": 10},
    "schedule's argument": {"kind": "linear", "sigma_max": 80},
    "preconditioning": "velocity",
    "network's flag": {"class_cond": True},
    "size": [8, 8, 3],
    "pixel_range": [-1, 0, 1],
    "pixel_range's order": [1, -1],
    "schedule's beta": {"kind": "linear", "beta_end": 2.0},
    "schedule's few steps": {"kind": "linear", "steps": 10},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_card_with_an_unknown_value_is_refused_by_name(wrong, card, tmp_path):
    key = wrong.split("'")[0].split(" ")[0]
    card[key] = card[key] | WRONG[wrong] if wrong == "network's flag" else WRONG[wrong]
    with pytest.raises(ValueError, match=r"card\.yaml"):
        from_folder(folder_with(card, tmp_path / "own", weights=False))


def test_a_card_that_does_not_fit_its_weights_is_refused(card, tmp_path):
    path = folder_with(card, tmp_path / "own")
    (tmp_path / "own" / "card.yaml").write_text(yaml.safe_dump(card | {"network": card["network"] | {"num_channels": 64}}))
    with pytest.raises(ValueError, match=r"weights\.safetensors does not fit the network: .* should be .* and is"):
        from_folder(path)


# Bounds


@pytest.mark.parametrize("pixel_range", [(1.0, -1.0), (0.0, 0.0), (float("nan"), 1.0)])
def test_an_empty_pixel_range_is_refused(pixel_range):
    with pytest.raises(ValueError, match="pixel_range must be"):
        Prior(nn.Identity(), Linear(), Eps(), pixel_range=pixel_range, **SIZE)


@pytest.mark.parametrize("channels", [0, 2, 4, 6, -1])
def test_images_are_grey_or_coloured(channels):
    with pytest.raises(ValueError, match=f"1 or 3 channels, got {channels}"):
        Prior(nn.Identity(), Linear(), Eps(), channels=channels, **SIZE)


@pytest.mark.parametrize("size", [(0, 8), (8, 0), (-8, 8)])
def test_an_empty_image_is_refused(size):
    with pytest.raises(ValueError, match="sides must be two positive whole numbers"):
        Prior(nn.Identity(), Linear(), Eps(), size=size)


@pytest.mark.parametrize("pixel_range", [(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0)])
def test_levels_are_in_the_units_of_the_images(pixel_range):
    """α is that of the schedule. σ is divided by the width of a [-1, 1] unit in the network's pixels."""
    low, high = pixel_range
    prior = Prior(nn.Identity(), Linear(), Eps(), pixel_range=pixel_range, **SIZE)
    for level, own in zip(prior.image_schedule.table, Linear().table, strict=True):
        assert (level.t, level.alpha) == (own.t, own.alpha)
        assert level.sigma == pytest.approx(own.sigma * 2 / (high - low), rel=1e-15)


def test_a_checkpoint_is_loaded_into_the_network(tmp_path):
    state = {"weight": torch.full((3, 3, 1, 1), 0.25), "bias": torch.arange(3.0)}
    torch.save(state, tmp_path / "w.pt")
    network = nn.Conv2d(3, 3, 1)
    Prior(network, Linear(), Eps(), checkpoint=Checkpoint(path=str(tmp_path / "w.pt")), **SIZE)
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in state.items())


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path):
    torch.save({"weight": torch.ones(3, 3, 1, 1)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="1 missing, first bias"):
        Prior(nn.Conv2d(3, 3, 1), Linear(), Eps(), checkpoint=Checkpoint(path=str(tmp_path / "w.pt")), **SIZE)


# The probe


class Answers(nn.Module):
    """A network that returns `answer(x, t)` and counts its calls."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.answer, self.asked = answer, 0

    def forward(self, x, t):
        self.asked += 1
        return self.answer(x, t)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("copies", "learned"), [(1, False), (2, True)])
def test_the_probe_detects_learned_variance_in_one_call(channels, copies, learned):
    network = Answers(lambda x, t: torch.cat([x] * copies, dim=1))
    assert Prior(network, Linear(), Eps(), channels=channels, **SIZE).probe() is learned
    assert network.asked == 1


def test_the_probe_uses_the_size_of_the_prior_and_an_integer_index():
    def answer(x, t):
        assert x.shape == (1, 1, 8, 12) and t.shape == (1,) and t.dtype == torch.int64
        return x

    assert Prior(Answers(answer), Linear(), Eps(), channels=1, size=(8, 12)).probe() is False


WRONG_ANSWERS = {
    "three times the channels": lambda x, t: torch.cat([x, x, x], dim=1),
    "half the size": lambda x, t: x[..., ::2, ::2],
    "no batch": lambda x, t: x[0],
    "one number": lambda x, t: x.mean(),
    "a tuple": lambda x, t: (x, x),
    "nothing": lambda x, t: None,
}


@pytest.mark.parametrize("answer", WRONG_ANSWERS.values(), ids=WRONG_ANSWERS)
def test_the_probe_refuses_an_answer_that_does_not_fit_the_image(answer):
    with pytest.raises(ValueError, match="the prior's network"):
        Prior(Answers(answer), Linear(), Eps(), **SIZE).probe()


@pytest.mark.parametrize("network", [nn.Conv2d(3, 3, 1), Answers(lambda x, t: nn.Conv2d(1, 3, 1)(x)), Answers(lambda x, t: x[7])])
def test_the_probe_refuses_a_network_that_cannot_take_the_image(network):
    """One without t, one for another number of channels, one that raises an error."""
    with pytest.raises(ValueError, match="the prior's network cannot take a 3 x 8 x 8 image and t: "):
        Prior(network, Linear(), Eps(), **SIZE).probe()
