"""Where compiled code is kept: for later processes, by processor, and where the user says."""

from __future__ import annotations

import os
import platform

import pytest
from torch import nn
from torch._inductor.runtime.cache_dir_utils import cache_dir

from diffusion_priors.runs.machine import cache

COMPILED = "TORCHINDUCTOR_CACHE_DIR"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    import diffusion_priors.runs.trainer  # noqa: F401 - what it imports may look for caches of its own

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv(COMPILED, "set here, so that it is as before after the test")
    monkeypatch.delenv(COMPILED)
    return tmp_path


def prepare(compile: bool) -> list[str]:
    from diffusion_priors.runs.trainer import TrainerSettings  # imports Lightning

    settings = TrainerSettings("cpu", compile=compile)
    settings.prepare(nn.Conv2d(3, 3, 1))
    return settings.notices


def test_compiled_code_is_kept_with_what_else_is_kept_and_pytorch_looks_there(home):
    (line,) = prepare(compile=True)
    folder = os.environ[COMPILED]
    assert folder.startswith(str(home / "xdg" / "diffusion-priors" / "compiled") + os.sep) and folder in line
    assert cache_dir() == folder


def test_the_users_own_place_is_respected(home, monkeypatch):
    monkeypatch.setenv(COMPILED, str(home / "own"))
    (line,) = prepare(compile=True)
    assert os.environ[COMPILED] == str(home / "own") and str(home / "own") in line
    assert cache_dir() == str(home / "own")


def test_nothing_is_set_where_nothing_is_compiled():
    assert prepare(compile=False) == [] and COMPILED not in os.environ


def test_processors_that_share_a_home_share_no_code(home, monkeypatch):
    """Code for the instructions of one would end the process of the other."""
    folders = []
    for text in ("flags : avx2\nmodel name : one\nmhz : 1\n", "flags : avx2\nmodel name : one\nmhz : 2\n", "flags : avx2 avx512f\n", None):
        monkeypatch.setattr(cache, "CPUINFO", home / "cpuinfo")
        (home / "cpuinfo").unlink(missing_ok=True) if text is None else (home / "cpuinfo").write_text(text)
        folders.append(cache.compiled_code())
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    folders.append(cache.compiled_code())
    assert folders[0] == folders[1] and len(set(folders)) == 4
