"""YAML and JSON from strangers: honest files are read, and no file takes more than moments."""

from __future__ import annotations

import os
from time import perf_counter

import pytest
import yaml

from diffusion_priors.runs.reading.foreign import DEEPEST, LARGEST_FILE, parse_json, read_yaml


def bomb(levels: int, width: int = 9) -> str:
    """Each level repeats the one before: width^levels values."""
    lines = ["a0: &a0 [x]"]
    return "\n".join([*lines, *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels))])


MERGED = [f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}" for i in range(1, 12)]
BAD = {
    "an alias bomb": (bomb(12), "more than 300000 values, aliases counted"),
    "a bomb of merged keys": ("\n".join(["m0: &m0 {a: 1, b: 2}", *MERGED]), "aliases counted"),
    "an alias within itself": ("a: &a [*a]", r"its alias \*a stands within itself"),
    "an alias of nothing": ("a: *b", "stands within itself|undefined alias"),
    "deep lists": ("[" * 100_000 + "]" * 100_000, f"nested more than {DEEPEST} levels deep|nesting depth"),
    "deep blocks": ("\n".join(" " * i + "a:" for i in range(2000)), "nested more than|nesting depth"),
    "many values": ("- a\n" * 400_000, "more than 300000 values"),
    "a large file": ("a: " + "x" * LARGEST_FILE, "bytes, and such a file has at most"),
    "an object of Python": ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    "a tab": ("a:\n\t- b", "line 2: "),
    "two documents": ("a: 1\n---\nb: 2", "another document"),
    "a date that is none": ("a: 2024-99-99", "month must be in 1..12"),
    "a list as a key": ("? [a]\n: b", "unhashable key"),
    "a number of 5000 digits": ("a: " + "9" * 5000, "Exceeds the limit"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_yaml_out_of_bounds_is_refused_at_once(case, tmp_path):
    text, message = BAD[case]
    (tmp_path / "card.yaml").write_text(text)
    start = perf_counter()
    with pytest.raises(ValueError, match=message) as raised:
        read_yaml(tmp_path / "card.yaml")
    assert perf_counter() - start < 10.0 and len(str(raised.value).splitlines()) == 1


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "card.yaml")
    with pytest.raises(ValueError, match="no regular file"):
        read_yaml(tmp_path / "card.yaml")
    with pytest.raises(ValueError, match="no regular file"):
        read_yaml(tmp_path)


def test_honest_files_are_read(tmp_path):
    content = {"betas": [1e-4 + 1e-6 * i for i in range(100_000)], "network": {"channel_mult": [1, 2]}, "none": None}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(content))
    assert read_yaml(tmp_path / "card.yaml") == content
    (tmp_path / "anchors.yaml").write_text("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: *a\n")
    assert read_yaml(tmp_path / "anchors.yaml") == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 1}}


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "nothing", ""])
def test_json_out_of_bounds_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 - of the json module or of ours
        parse_json(text)
