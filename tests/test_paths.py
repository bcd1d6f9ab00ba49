"""Paths on the command line that exist are taken literally."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from diffusion_priors.conf.paths import literal_paths, quoted

NAMES = [
    "a",
    "images/x",
    "a'b",
    "a\\b",
    "a\\'b",
    "a\\",
    "a\\\\",
    "${x}",
    "$x",
    "a=b,c=d~1f",
    "[x]",
    "{a: b}",
    "a b ",
    "\\'",
    "7",
    "null",
    "true",
    "(a)",
    "#a",
    "ü",
]


def value_of(argument: str) -> object:
    """What the configuration holds at last."""
    override = OverridesParser.create().parse_override(argument)
    return OmegaConf.to_container(OmegaConf.create({"value": override.value()}), resolve=True)["value"]


@pytest.mark.parametrize("name", NAMES)
def test_a_quoted_text_is_read_literally(name):
    assert value_of(f"data.root={quoted(name)}") == name


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["data.root", "input", "samples", "truth", "operator.path", "output_dir", "+data.freeze"])
def test_what_exists_is_meant(here, key, name):
    if name[0] == "$":
        assert literal_paths([f"{key}={name}"]) == [f"{key}={name}"]  # as Hydra reads it: an interpolation
    else:
        assert value_of(literal_paths([f"{key}={name}"])[0]) == name


def test_the_names_of_output_folders_stay_what_they_were(here):
    """They are made of the overrides, so quotes that are not needed would make another name."""
    assert literal_paths(["data.root=images/x", f"input={here}/a"]) == ["data.root=images/x", f"input={here}/a"]


def test_two_folders_of_a_sweep_can_be_compared_as_they_are_called(here):
    (here / "c=1,d=2").mkdir()
    assert value_of(literal_paths(["compare=[a=b,c=d~1f,c=1,d=2]"])[0]) == ["a=b,c=d~1f", "c=1,d=2"]
    assert value_of(literal_paths([f"input=[{here}/a b , {here}/7]"])[0]) == [f"{here}/a b", f"{here}/7"]


@pytest.mark.parametrize(
    "argument",
    [
        "seed=7",
        "solver=a",
        "data.root=nowhere,else",
        "data.root=",
        "data.root='a'",
        "compare=[a,nowhere]",
        "compare=[]",
        "compare=[a,b=c,d]",
        "--help",
        "data.root",
        "~data.root",
        "data.root=*.png",
    ],
)
def test_other_arguments_stay_as_they_are(here, argument):
    for name in ("a,b=c", "d", "b=c,d"):  # so that [a,b=c,d] could be two things
        (here / name).mkdir()
    assert literal_paths([argument]) == [argument]


def test_an_output_folder_is_one_text_before_it_exists(here):
    assert literal_paths(["output_dir=new/solver=x,seed=1"]) == ["output_dir='new/solver=x,seed=1'"]
    assert literal_paths(["-m", "output_dir=new,other"]) == ["-m", "output_dir=new,other"]
    assert literal_paths(["output_dir=new/run", "output_dir=7"])[0] == "output_dir=new/run"


def test_a_sweep_over_folders_stays_one(here):
    (here / "b").mkdir()
    assert literal_paths(["-m", "data.root=a,b"]) == ["-m", "data.root=a,b"]
    (here / "a,b").mkdir()
    assert literal_paths(["-m", "data.root=a,b"]) == ["-m", "data.root=a,b"]
    assert literal_paths(["data.root=a,b"]) == ["data.root='a,b'"]
    assert literal_paths(["--multirun", "data.root=a=b,c=d~1f"]) == ["--multirun", "data.root='a=b,c=d~1f'"]


def test_a_long_list_is_left_to_hydra_soon(here):
    argument = f"input=[{','.join(['a'] * 5000)}]"
    assert literal_paths([argument]) == [argument]
