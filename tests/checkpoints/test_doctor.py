"""Mistakes planted in priors, and what the doctor says of each: the bundled prior, and an exact one that costs nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffusion_priors.checkpoints.__main__ import main
from diffusion_priors.checkpoints.denoising import Faces, corrections, index_shift
from diffusion_priors.checkpoints.doctor import examine
from diffusion_priors.checkpoints.networks import Retimed, Reversed
from diffusion_priors.conf import PROJECT
from diffusion_priors.diffusion.preconditioning import X0, Eps, Score, V
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.schedules import Cosine, Linear

FACES64 = PROJECT / "diffusion" / "weights" / "faces64"
SMALL = (32, 32)
"""The bundled prior runs at this size too, four times as fast, and knows its settings there."""


# An exact prior


STANDARD_DEVIATIONS = torch.tensor([0.03, 0.05, 0.08]).view(3, 1, 1)
MEANS = torch.tensor([0.4, 0.0, -0.3]).view(3, 1, 1)


class ExactEps(nn.Module):
    """E[ε | x_t] of independent pixels N(mean, std²), each channel with its own, on a schedule; t is rounded to an index."""

    def __init__(self, schedule) -> None:
        super().__init__()
        self.schedule = schedule

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        level = self.schedule.table[min(max(round(t[0].item()), 0), len(self.schedule.table) - 1)]
        return level.sigma * (x - level.alpha * MEANS) / (level.alpha**2 * STANDARD_DEVIATIONS**2 + level.sigma**2)


def exact(trained=None, **stated) -> Prior:
    """What was trained on one schedule, and what is said of it."""
    settings = {"schedule": trained or Linear(), "preconditioning": Eps()} | stated
    return Prior(ExactEps(trained or Linear()), size=(16, 16), **settings)


@pytest.fixture(scope="module")
def drawn() -> Faces:
    z = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return Faces.of(MEANS + STANDARD_DEVIATIONS * z)


@pytest.mark.parametrize(
    ("prior", "setting", "value"),
    [
        (exact(Cosine(), schedule=Linear()), "schedule", "cosine"),
        (exact(Linear(), schedule=Cosine()), "schedule", "linear, steps=1000"),
        (exact(Linear(), schedule=Linear(100)), "schedule", "linear, steps=1000"),
        (exact(preconditioning=V()), "output", "eps"),
        (exact(preconditioning=X0()), "output", "eps"),
        (exact(preconditioning=Score()), "output", "eps"),
        (exact(pixel_range=(0.0, 1.0)), "pixel range", "[-1, 1]"),
        (exact(pixel_range=(0.0, 255.0)), "pixel range", "[-1, 1]"),
        (exact().with_network(Reversed(ExactEps(Linear()))), "channels", "BGR"),
        (exact().with_network(Retimed(ExactEps(Linear()), 1000.0)), "index", "t · 0.001"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_a_mistake_is_the_only_thing_found(drawn, prior, setting, value):
    found, corrected = corrections(prior, drawn)
    assert [one.change.setting for one in found] == [setting]
    assert found[0].change.value.startswith(value)
    assert corrections(corrected, drawn)[0] == []


def test_two_names_of_one_mistake_are_both_given(drawn):
    """A network of 250 steps that is fed 4 t is, but for the number of levels, one of a thousand."""
    (found,) = corrections(exact(Linear(250)).with_network(Retimed(ExactEps(Linear(250)), 0.25)), drawn)[0]
    assert [one.value for one in found.alike] == ["t · 4"]


def test_nothing_is_found_where_nothing_is_wrong(drawn):
    assert corrections(exact(), drawn)[0] == []
    assert max(map(abs, index_shift(exact(), drawn))) < 0.7


def test_a_schedule_of_few_steps_is_examined_too(drawn):
    """The linear one of as many steps does not exist."""
    few = Linear(10, 1e-3, 0.3)
    assert corrections(exact(few, preconditioning=V()), drawn)[0][0].change.value == "eps"


def test_two_mistakes_are_both_found(drawn):
    found, _ = corrections(exact(preconditioning=V()).with_network(Reversed(ExactEps(Linear()))), drawn)
    assert {one.change.setting for one in found} == {"output", "channels"}


@pytest.mark.parametrize("shift", [-5, -1, 1, 3, 6])
def test_the_shift_of_an_index_is_measured(drawn, shift):
    """A network that wants t + shift is one that is fed t where it expects the index before."""
    prior = exact().with_network(Retimed(ExactEps(Linear()), shift=-shift))
    found = index_shift(prior, drawn)
    assert max(abs(one - shift) for one in found) < 0.7 + 0.05 * abs(shift)


# The bundled prior


def planted(folder: Path, card: dict | None = None, weights=None) -> str:
    """The bundled prior with other words on its card, or other weights."""
    shutil.copytree(FACES64, folder)
    written = yaml.safe_load((folder / "card.yaml").read_text()) | (card or {})
    (folder / "card.yaml").write_text(yaml.safe_dump(written))
    if weights is not None:
        state = load_file(folder / "weights.safetensors")
        weights(state)
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "weights.safetensors")
    return str(folder)


def reverse_channels(state: dict[str, Tensor]) -> None:
    state["input_blocks.0.0.weight"] = state["input_blocks.0.0.weight"].flip(1)
    for kind in ("weight", "bias"):
        state[f"out.2.{kind}"] = state[f"out.2.{kind}"].flip(0)


def count_from(first: int):
    """The embedding of t is turned so that the network, fed t, does what it did for t − `first`."""

    def turn(state: dict[str, Tensor]) -> None:
        weight = state["time_embed.0.weight"].double()
        half = weight.shape[1] // 2
        angle = first * torch.exp(-torch.arange(half).double() * torch.log(torch.tensor(1e4).double()) / half)
        cos, sin = weight[:, :half], weight[:, half:]
        turned = torch.cat([cos * angle.cos() - sin * angle.sin(), cos * angle.sin() + sin * angle.cos()], dim=1)
        state["time_embed.0.weight"] = turned.to(state["time_embed.0.weight"].dtype)

    return turn


def untrain(state: dict[str, Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    for name, tensor in state.items():
        state[name] = 0.1 * torch.randn(tensor.shape, generator=generator)


PLANTS = {
    "schedule": (
        {"schedule": {"kind": "cosine"}},
        None,
        "schedule is linear, steps=1000, beta_start=0.0001, beta_end=0.02, not cosine",
    ),
    "steps": ({"schedule": {"kind": "linear", "steps": 200}}, None, "schedule is linear, steps=1000"),
    "eps": ({"preconditioning": "eps"}, None, "output is v, not eps (card.yaml)"),
    "range": ({"pixel_range": [0, 1]}, None, "pixel range is [-1, 1], not [0, 1] (card.yaml)"),
    "BGR": ({}, reverse_channels, "channels is BGR, not RGB"),
    "shift": ({}, count_from(5), "index is shifted by +"),
    "untrained": ({}, untrain, "it does not denoise"),
}


@pytest.mark.slow  # a trained network is asked a hundred times, in ten seconds
@pytest.mark.parametrize("plant", PLANTS)
def test_the_doctor_names_what_was_planted_in_the_bundled_prior(tmp_path, plant):
    card, weights, sentence = PLANTS[plant]
    found = examine(planted(tmp_path / "prior", card, weights), size=SMALL)
    assert len(found.wrong) == 1 and found.wrong[0].startswith(sentence), found
    assert found.unknown or len(found.confirmed) >= 3


@pytest.mark.slow
def test_the_doctor_finds_nothing_wrong_with_the_bundled_prior():
    found = examine(str(FACES64), size=SMALL)
    assert found.wrong == []
    assert [line.split(":")[0] for line in found.confirmed][:4] == ["schedule", "output", "pixel range", "channels"]


# What is no prior


class Command:
    def __reduce__(self):
        return Path.touch, (Path("sprung"),)


NO_PRIORS = {
    "empty.pt": (lambda path: path.touch(), "is damaged or no checkpoint: EOFError; fetch it again"),
    "text.ckpt": (lambda path: path.write_text("hello"), "does not begin as one (a saved web page?); fetch it again"),
    "page.safetensors": (lambda path: path.write_text("<html></html>"), "is damaged or no checkpoint: "),
    "code.pt": (lambda path: torch.save({"a": Command()}, path), "was refused; none of it was run; "),
    "list.pt": (lambda path: torch.save([1], path), "is not a state dict of tensors but a list; "),
    "other.pt": (
        lambda path: torch.save({"encoder.weight": torch.ones(2)}, path),
        "begin with encoder.weight; for your own network",
    ),
    "folder": (lambda path: path.mkdir(), "weights.safetensors is missing; "),
    "nothing": (lambda path: None, "it is no name on the hub (owner/name)"),
}


@pytest.mark.parametrize("name", NO_PRIORS)
def test_what_is_no_prior_is_refused_in_one_line(name, tmp_path, capsys, monkeypatch):
    make, message = NO_PRIORS[name]
    monkeypatch.chdir(tmp_path)
    make(tmp_path / name)
    assert main(["doctor", str(tmp_path / name)]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ") and message in shown.err and shown.err.count("\n") == 1 and shown.out == ""
    assert not (tmp_path / "sprung").exists()
