"""The folder of an evaluation: gone on with or refused, begun anew, shared, and mended after a kill."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from sweep_folder import record

from diffusion_priors.evaluation.restoration.folder import EvaluationFolder, pending
from diffusion_priors.evaluation.restoration.module import Restored
from diffusion_priors.runs.layout import RunLayout

CONFIG = {"seed": 0, "solver": {"zeta": 1.0}, "batch_size": 8, "trainer": {"devices": 1, "precision": 32}, "data": {"workers": 0}}


def text(config: dict, weights: str | None = None) -> str:
    return yaml.safe_dump({"config": config, "weights": weights})


def batch(*records: dict) -> Restored:
    x = torch.linspace(-1, 1, len(records) * 3 * 4 * 4).view(-1, 3, 4, 4)
    return Restored(tuple(r["id"] for r in records), tuple(r["sample"] for r in records), x, x, x, list(records))


@pytest.fixture
def begun(tmp_path):
    """A folder with the records of a and b, made with CONFIG and the weights w."""
    folder = EvaluationFolder(tmp_path / "run", 0)
    assert folder.find(CONFIG, "w") == set() and not folder.root.exists()
    folder.open(text(CONFIG, "w"))
    folder.add(batch(record("a"), record("b")), set())
    return folder


def test_a_run_is_gone_on_with_from_its_records(begun):
    assert begun.find(CONFIG, "w") == {("a", 0), ("b", 0)}
    assert begun.find(CONFIG | {"batch_size": 1, "trainer": {"devices": 4, "precision": 32}, "data": {"workers": 3}}, "w")


CHANGES = {
    "a value": (CONFIG | {"seed": 3}, "w", "seed was 0, is 3"),
    "a deep value": (CONFIG | {"solver": {"zeta": 2.0}}, "w", r"solver\.zeta was 1\.0, is 2\.0"),
    "a key more": (CONFIG | {"grid": {"steps": 5}}, "w", r"grid\.steps was None, is 5"),
    "a key less": ({key: value for key, value in CONFIG.items() if key != "seed"}, "w", "seed was 0, is None"),
    "precision": (CONFIG | {"trainer": {"devices": 1, "precision": "bf16"}}, "w", r"trainer\.precision was 32, is 'bf16'"),
    "weights": (CONFIG, "v", "the prior's weights were those of w, are those of v"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_another_run_is_refused_with_the_difference(begun, case):
    config, weights, message = CHANGES[case]
    with pytest.raises(
        ValueError, match=f"holds a run with another configuration: {message}; choose another output_dir, or overwrite=true"
    ):
        begun.find(config, weights)
    assert EvaluationFolder(begun.root, 0, overwrite=True).find(config, weights) == set()


@pytest.mark.parametrize("content", ["", "config: 3", "[1]", "config: {a: [", "other: {}"])
def test_a_damaged_configuration_is_told(begun, content):
    (begun.root / "config.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"config\.yaml .*so its run cannot be compared with this one; overwrite=true begins anew"):
        begun.find(CONFIG, "w")


def test_what_is_known_is_not_written_again(begun):
    """A batch begun before is restored whole: of what was on record neither figures nor images change."""
    before = (begun.root / "images/b/restoration-0.png").read_bytes()
    begun.add(batch(record("b", psnr=99.0), record("c", psnr=1.0)), {("a", 0), ("b", 0)})
    assert [(one["id"], one["psnr"]) for one in begun.merge()] == [("a", None), ("b", None), ("c", 1.0)]
    assert (begun.root / "images/b/restoration-0.png").read_bytes() == before


def test_opening_mends_what_a_killed_run_left(begun):
    """A cut line, files under temporary names, an old error and the summary of when it was done go; whole files, and a user's own, stay."""
    with RunLayout(begun.root).records_of(1).open("w") as stream:
        stream.write(json.dumps(record("c")) + '\n{"id": "d"')
    left = [begun.root / ".summary.json.abcd1234", begun.root / "images" / "a" / ".truth.png.abcd1234", begun.root / "error.txt"]
    left.append(begun.root / "summary.json")
    own = [begun.root / "notes.txt", begun.root / ".gitignore", begun.root / "images" / "a" / "truth.png"]
    for path in [*left, *own[:2]]:
        path.write_text("x")
    begun.open(text(CONFIG, "w"))
    assert not any(path.exists() for path in left) and all(path.exists() for path in own)
    assert begun.find(CONFIG, "w") == {("a", 0), ("b", 0), ("c", 0)}
    kept = RunLayout(begun.root).records_of(1).read_text()
    assert kept.count("\n") == 1 and kept.endswith("\n")


def test_overwriting_leaves_nothing_of_the_old_run(begun):
    RunLayout(begun.root).records_of(3).write_text(json.dumps(record("z")) + "\n")
    for name in ("summary.json", "posterior.jsonl", "figure.png", "report.html", "notes.txt"):
        (begun.root / name).write_text("{}")
    again = EvaluationFolder(begun.root, 0, overwrite=True)
    again.find({"seed": 1}, "v")
    again.open(text({"seed": 1}, "v"))
    assert {path.name for path in begun.root.iterdir()} == {"config.yaml", "notes.txt"}


def test_merging_takes_every_processs_file_and_leaves_one(begun):
    EvaluationFolder(begun.root, 2).add(batch(record("0"), record("c")), set())
    assert RunLayout(begun.root).records_of(2).is_file()
    assert [one["id"] for one in begun.merge()] == ["0", "a", "b", "c"]
    assert [path.name for path in begun.root.glob("records*")] == ["records.jsonl"]
    assert begun.find(CONFIG, "w") == {(name, 0) for name in "0abc"}


def test_a_summary_is_there_or_not(begun):
    assert begun.summary() is None
    (begun.root / "summary.json").write_text("{")
    assert begun.summary() is None
    begun.finish({"ä": 1})
    assert begun.summary() == {"ä": 1}


def test_a_place_that_cannot_be_written_is_told_before_anything(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PermissionError, match=r"cannot write to .*file; set output_dir"):
        EvaluationFolder(tmp_path / "file" / "deep" / "run", 0).find(CONFIG)


def test_batches_are_pending_until_all_of_them_is_on_record():
    keys = [(name, k) for name in "abc" for k in (0, 1)]
    groups = [range(0, 4), range(4, 6)]
    assert pending(groups, keys, set()) == groups
    assert pending(groups, keys, {*keys[:3]}) == groups
    assert pending(groups, keys, {*keys[:4]}) == groups[1:]
    assert pending(groups, keys, {*keys}) == []
