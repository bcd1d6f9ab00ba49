"""What a trainer says of the machine."""

from __future__ import annotations

import platform

import pytest
import torch

AVX2, AVX512_BF16, AMX = (False, False), (True, False), (False, True)


def notices(monkeypatch, instructions: tuple[bool, bool], machine: str = "x86_64", cuda: bool = False, **settings) -> list[str]:
    from diffusion_priors.runs.trainer import TrainerSettings  # imports Lightning

    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions[0])
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: instructions[1])
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    return TrainerSettings(**settings).notices


def test_bf16_without_instructions_for_it_is_slow_and_the_run_says_so(monkeypatch):
    (line,) = notices(monkeypatch, AVX2, precision="bf16")
    assert "neither AVX512-BF16 nor AMX; set trainer.precision=32" in line and "\n" not in line


@pytest.mark.parametrize(
    ("instructions", "settings"),
    [
        (AVX512_BF16, {"precision": "bf16"}),
        (AMX, {"precision": "bf16"}),
        (AVX2, {"precision": 32}),
        (AVX2, {"precision": "bf16", "cuda": True}),
        (AVX2, {"precision": "bf16", "machine": "arm64"}),
    ],
)
def test_nothing_is_said_otherwise(monkeypatch, instructions, settings):
    assert notices(monkeypatch, instructions, **settings) == []


def test_a_processor_is_asked_even_where_there_is_a_gpu(monkeypatch):
    assert len(notices(monkeypatch, AVX2, cuda=True, accelerator="cpu", precision="bf16")) == 1


def test_restore_prints_the_line_once(monkeypatch, capsys):
    import diffusion_priors as dp
    from diffusion_priors.runs.trainer import TrainerSettings

    monkeypatch.setattr("diffusion_priors.runs.trainer.computes_bf16", lambda: False)
    dp.restore(image=dp.FACES[0], operator="inpaint_box", solver="ddrm", steps=1, trainer=TrainerSettings("cpu", precision="bf16"))
    assert capsys.readouterr().err.count("trainer.precision=bf16 is many times slower") == 1
