"""How the configuration of a run differs from the one that its folder keeps, and what the refusal says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from diffusion_priors.runs.config import changed_keys, differences, listed, refuse


def test_a_refusal_names_three_differences_and_counts_the_others():
    """Values that changed come before keys that only one of the two has."""
    old = {f"a{i}": i for i in range(40)} | {"seed": 0, "gone": 1}
    changes = changed_keys(old, {"seed": 1} | {f"b{i}": "x" * 1000 for i in range(40)})
    assert len(changes) == 82
    with pytest.raises(
        ValueError, match=r"^out holds a run .*: seed was 0, is 1; .*; .*; and 79 more; choose another output_dir"
    ) as raised:
        refuse(Path("out"), changes)
    assert len(str(raised.value)) < 500


def test_few_differences_are_all_named():
    assert listed(["a was 1, is 2", "b was 3, is 4"]) == "a was 1, is 2; b was 3, is 4"
    refuse(Path("out"), [])


def test_a_hostile_value_is_neither_long_nor_obeyed():
    (shown,) = [listed(changed_keys({"a": "\x1b[2J" * 1000}, {"a": 1}))]
    assert len(shown) < 200 and shown.isprintable()


def test_the_kept_configuration_is_read_within_bounds(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"config": {"seed": 0, "logger": {"a": 1}}}))
    assert differences(tmp_path / "config.yaml", {"seed": 1}, ["logger"]) == ["seed was 0, is 1"]
    (tmp_path / "config.yaml").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is damaged"):
        differences(tmp_path / "config.yaml", {"seed": 1}, [])
