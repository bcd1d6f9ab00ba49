"""What `auto` chooses by the machine, what a run says of it, and that its folder keeps the choice and not the word."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import pytest
import torch
import yaml

from diffusion_priors.conf import PROJECT
from diffusion_priors.runs.machine import fast

if TYPE_CHECKING:
    from diffusion_priors.runs.trainer import TrainerSettings

FAST = {"precision": "auto", "compile": "auto"}
PROCESSORS = {
    "AVX2": ("x86_64", (), 32),
    "AVX512-BF16": ("AMD64", ("avx512_bf16",), "bf16"),
    "AMX": ("x86_64", ("avx512_bf16", "amx_tile"), "bf16"),
    "another kind": ("arm64", ("avx512_bf16", "amx_tile"), 32),
}
GPUS = {
    "Pascal": ([(6, 1)], 32, False),
    "Volta": ([(7, 0)], 16, True),
    "Turing": ([(7, 5)], 16, True),
    "Ampere": ([(8, 0)], "bf16", True),
    "Hopper and Volta": ([(9, 0), (7, 0)], 16, True),
    "Ampere and Pascal": ([(8, 6), (6, 1)], 32, False),
}


@pytest.fixture
def machine(monkeypatch):
    """`machine(instructions, kind, gpus, triton)` is the one that the next trainer sees."""

    def become(instructions=(), kind="x86_64", gpus=(), triton=True) -> None:
        monkeypatch.setattr(platform, "machine", lambda: kind)
        for name in ("avx512_bf16", "amx_tile"):
            monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda name=name: name in instructions)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(gpus))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: gpus[device])
        monkeypatch.setattr(fast, "find_spec", lambda name: object() if triton else None)

    return become


def trainer(**settings) -> TrainerSettings:
    from diffusion_priors.runs.trainer import TrainerSettings  # imports Lightning

    return TrainerSettings(**settings)


def values(settings: TrainerSettings) -> tuple:
    assert {name: choice.value for name, choice in settings.chosen.items() if name == "compile"} == {"compile": settings.compile}
    return settings.chosen["precision"].value, settings.precision, settings.compile


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_processor_computes_in_bf16_where_it_has_instructions_for_it_and_compiles_nothing(machine, name):
    kind, instructions, precision = PROCESSORS[name]
    for gpus, accelerator in (((), "auto"), ([(9, 0)], "cpu")):
        machine(instructions, kind, gpus)
        made = trainer(accelerator=accelerator, **FAST)
        assert values(made) == (precision, {32: "32-true", "bf16": "bf16-mixed"}[precision], False)
        assert made.autocast == {32: None, "bf16": torch.bfloat16}[precision]


@pytest.mark.parametrize("accelerator", ["auto", "gpu"])
@pytest.mark.parametrize("name", GPUS)
def test_gpus_compute_and_compile_as_the_oldest_of_them_can(machine, name, accelerator):
    gpus, precision, compiled = GPUS[name]
    machine(gpus=gpus)
    lightning = {32: "32-true", 16: "16-mixed", "bf16": "bf16-mixed"}[precision]
    assert values(trainer(accelerator=accelerator, **FAST)) == (precision, lightning, compiled)


def test_nothing_is_compiled_without_triton(machine):
    machine(gpus=[(9, 0)], triton=False)
    assert values(trainer(**FAST)) == ("bf16", "bf16-mixed", False)


def test_a_value_that_is_given_is_not_chosen(machine):
    machine(("avx512_bf16",))
    made = trainer(precision=32, compile="auto")
    assert (made.precision, made.compile, [*made.chosen]) == ("32-true", False, ["compile"])
    assert not trainer(precision=32, compile=False).chosen


def test_one_line_says_what_was_chosen_and_why(machine):
    machine(("avx512_bf16",))
    (line,) = trainer(**FAST).notices
    precision, compiled = "trainer.precision=bf16 (the processor has AVX512-BF16)", "trainer.compile=false (a processor gains little by it)"
    assert line == f"chosen for this machine: {precision}, {compiled}"
    machine(gpus=[(7, 5)])
    line, compiling = trainer(precision="auto").notices, trainer(compile=True).notices
    assert line == ["chosen for this machine: trainer.precision=16 (a GPU of capability 7.5 has no tensor cores for bf16)"]
    assert len(compiling) == 1 and "compiled" in compiling[0]


def test_several_machines_are_not_left_to_choose_for_themselves(machine):
    machine(("avx512_bf16",))
    with pytest.raises(ValueError, match=r"precision=auto, and 2 machines may choose differently; set trainer\.precision=bf16 or 32"):
        trainer(precision="auto", num_nodes=2)
    assert trainer(precision="bf16", compile="auto", num_nodes=2).world == 2


@pytest.mark.parametrize("script", ["sample", "evaluate", "train"])
def test_a_run_keeps_what_was_chosen_and_is_not_resumed_where_another_precision_is(machine, script, tmp_path):
    """Two machines, one folder: the second would compute the other images in another precision."""
    import hydra

    from diffusion_priors.conf.build import build_trainer
    from diffusion_priors.conf.kept import kept
    from diffusion_priors.evaluation.restoration.folder import MAY_DIFFER_ON_RESUME
    from diffusion_priors.runs.config import differences

    found = []
    for instructions in (("avx512_bf16",), (), ("amx_tile",)):
        machine(instructions)
        with hydra.initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
            config = hydra.compose(script, overrides=["trainer=fast", *(["data.root=images"] if script == "train" else [])])
        build_trainer(config.trainer)
        found.append({"trainer": kept(config)["trainer"]})
    assert [one["trainer"]["precision"] for one in found] == ["bf16", 32, "bf16"]
    assert "auto" not in (found[0]["trainer"]["precision"], found[0]["trainer"]["compile"])
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"config": found[0]}), encoding="utf-8")
    assert differences(path, found[1], MAY_DIFFER_ON_RESUME) == ["trainer.precision was 'bf16', is 32"]
    assert differences(path, found[2], MAY_DIFFER_ON_RESUME) == []


def test_python_takes_the_name_of_the_option(capsys):
    import diffusion_priors as dp

    dp.restore(image=dp.FACES[0], operator="inpaint_box", solver="ddrm", steps=1, trainer="fast")
    assert capsys.readouterr().err.count("chosen for this machine: trainer.precision=") == 1
