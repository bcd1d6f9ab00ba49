"""Pickles of EDM read without their code: a pickle of the same making, and one that would run a command."""

from __future__ import annotations

import pickle
import sys
import types

import pytest
import torch
from torch import nn

from diffusion_priors.api.parts import load_prior
from diffusion_priors.checkpoints.__main__ import main
from diffusion_priors.checkpoints.pickled import read_pickle
from diffusion_priors.diffusion.networks.edm import DhariwalUNet


@pytest.fixture
def persistence(monkeypatch):
    """A module of NVIDIA's name whose function, as theirs, is what a network's pickle calls with the source of its class."""
    module, above = types.ModuleType("torch_utils.persistence"), types.ModuleType("torch_utils")

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("the pickle's code was run")

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj
    monkeypatch.setitem(sys.modules, "torch_utils", above)
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", module)
    return module


class Persistent:
    """A module that is pickled as NVIDIA's classes are."""

    def __init__(self, persistence, module: nn.Module, name: str, **settings) -> None:
        state = dict(vars(module)) | settings
        state["_modules"] = {key: self.wrapped(persistence, child) for key, child in module._modules.items() if child is not None}
        self.meta = {"type": "class", "version": 6, "module_src": "raise SystemExit", "class_name": name, "state": state}
        self.function = persistence._reconstruct_persistent_obj

    @staticmethod
    def wrapped(persistence, module: nn.Module):
        return module if type(module).__module__.startswith("torch.") else Persistent(persistence, module, type(module).__name__)

    def __reduce__(self):
        return self.function, (self.meta,)


def network() -> nn.Module:
    torch.manual_seed(0)
    return DhariwalUNet(16, model_channels=64, channel_mult=[1, 2], num_blocks=1, attention_resolutions=[8])


def test_a_pickle_becomes_safetensors_with_the_same_output(persistence, tmp_path, capsys):
    inner, outer = network(), nn.Module()
    outer.model = inner
    for parameter in [*inner.parameters()][::2]:
        parameter.requires_grad_(False)
    content = {"ema": Persistent(persistence, outer, "EDMPrecond", sigma_data=0.6, sigma_min=0, sigma_max=float("inf"))}
    (tmp_path / "edm.pkl").write_bytes(pickle.dumps(content))
    source, target = str(tmp_path / "edm.pkl"), str(tmp_path / "edm.safetensors")
    assert main(["convert", source, target]) == 0
    assert "preconditioning=EDMPrecond, sigma_data=0.6" in capsys.readouterr().out
    prior, x = load_prior(target), torch.randn(1, 3, 16, 16)
    assert prior.preconditioning.data_std == 0.6
    with torch.no_grad():
        assert torch.equal(prior.network.eval()(x, torch.ones(1)), inner.eval()(x, torch.ones(1)))
    assert main(["convert", source, target]) == 2
    assert "exists" in capsys.readouterr().err


class Command:
    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self):
        return eval, (self.text,)


def test_a_command_in_a_pickle_is_not_run(tmp_path, capsys):
    trap = tmp_path / "ran"
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"ema": Command(f"open({str(trap)!r}, 'w')")}))
    assert main(["convert", str(tmp_path / "evil.pkl"), str(tmp_path / "out.safetensors")]) == 2
    assert "holds no tensors" in capsys.readouterr().err
    assert not trap.exists()
    assert main(["doctor", str(tmp_path / "evil.pkl")]) == 2
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"<html>", pickle.dumps([1, 2]), pickle.dumps({"ema": 3})])
def test_what_is_no_pickle_of_edm_is_refused(tmp_path, content, capsys):
    (tmp_path / "x.pkl").write_bytes(content)
    assert main(["convert", str(tmp_path / "x.pkl"), str(tmp_path / "y.safetensors")]) == 2
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "y.safetensors").exists()


def test_objects_of_any_class_are_shells(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"layer": nn.Linear(2, 2)}))
    assert type(read_pickle(tmp_path / "x.pkl")["layer"]).__name__ == "Shell"
