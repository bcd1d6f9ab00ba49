"""The folder of a run: resumed or refused, overwritten, shared, and cleaned up after a kill."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from sweep_folder import record

from diffusion_priors.evaluation.restoration.batches import Restored
from diffusion_priors.evaluation.restoration.folder import RestorationFolder, pending
from diffusion_priors.runs.layout import TRUTH, RunLayout, restoration

CONFIG = {"seed": 0, "solver": {"zeta": 1.0}, "batch_size": 8, "trainer": {"devices": 1, "precision": 32}, "data": {"workers": 0}}


def text(config: dict, weights: str | None = None) -> str:
    return yaml.safe_dump({"config": config, "weights": weights})


def batch(*records: dict) -> Restored:
    x = torch.linspace(-1, 1, len(records) * 3 * 4 * 4).view(-1, 3, 4, 4)
    ids, samples = tuple(r["id"] for r in records), tuple(r["sample"] for r in records)
    return Restored(ids, samples, x, x, x, list(records), measurement_image=x)


@pytest.fixture
def started(tmp_path):
    """A folder with the records of a and b, made with CONFIG and the weights w."""
    folder = RestorationFolder(tmp_path / "run", 0)
    assert folder.find(CONFIG, "w") == set() and not folder.root.exists()
    folder.open(text(CONFIG, "w"))
    folder.add(batch(record("a"), record("b")), set())
    return folder


def test_a_run_resumes_from_its_records(started):
    assert started.find(CONFIG, "w") == {("a", 0), ("b", 0)}
    assert started.find(CONFIG | {"batch_size": 1, "trainer": {"devices": 4, "precision": 32}, "data": {"workers": 3}}, "w")


CHANGES = {
    "a value": (CONFIG | {"seed": 3}, "w", "seed was 0, is 3"),
    "a deep value": (CONFIG | {"solver": {"zeta": 2.0}}, "w", r"solver\.zeta was 1\.0, is 2\.0"),
    "a key more": (CONFIG | {"grid": {"steps": 5}}, "w", r"grid\.steps was None, is 5"),
    "a key less": ({key: value for key, value in CONFIG.items() if key != "seed"}, "w", "seed was 0, is None"),
    "precision": (CONFIG | {"trainer": {"devices": 1, "precision": "bf16"}}, "w", r"trainer\.precision was 32, is 'bf16'"),
    "weights": (CONFIG, "v", "the prior's weights were those of w, are those of v"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_another_run_is_refused_with_the_difference(started, case):
    config, weights, message = CHANGES[case]
    with pytest.raises(
        ValueError, match=f"holds a run with another configuration: {message}; choose another output_dir, or overwrite=true"
    ):
        started.find(config, weights)
    assert RestorationFolder(started.root, 0, overwrite=True).find(config, weights) == set()


@pytest.mark.parametrize("content", ["", "config: 3", "[1]", "config: {a: [", "other: {}"])
def test_a_damaged_configuration_is_refused(started, content):
    (started.root / "config.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"config\.yaml .*so its run cannot be compared with this one; use overwrite=true to start over"):
        started.find(CONFIG, "w")


def test_items_on_record_are_not_written_again(started):
    """A batch that was finished in part is restored as a whole, but neither records nor images on record change."""
    before = (started.root / "images/b/restoration-0.png").read_bytes()
    started.add(batch(record("b", psnr=99.0), record("c", psnr=1.0)), {("a", 0), ("b", 0)})
    assert [(one["id"], one["psnr"]) for one in started.merge()] == [("a", None), ("b", None), ("c", 1.0)]
    assert (started.root / "images/b/restoration-0.png").read_bytes() == before


def test_opening_removes_what_a_killed_run_left_unfinished(started):
    """An incomplete line, temporary files, an old error and an old summary are removed; complete files, and the user's own, stay."""
    with RunLayout(started.root).records_of(1).open("w") as stream:
        stream.write(json.dumps(record("c")) + '\n{"id": "d"')
    left = [started.root / ".summary.json.abcd1234", started.root / "images" / "a" / ".truth.png.abcd1234", started.root / "error.txt"]
    left.append(started.root / "summary.json")
    own = [started.root / "notes.txt", started.root / ".gitignore", started.root / "images" / "a" / "truth.png"]
    for path in [*left, *own[:2]]:
        path.write_text("x")
    started.open(text(CONFIG, "w"))
    assert not any(path.exists() for path in left) and all(path.exists() for path in own)
    assert started.find(CONFIG, "w") == {("a", 0), ("b", 0), ("c", 0)}
    kept = RunLayout(started.root).records_of(1).read_text()
    assert kept.count("\n") == 1 and kept.endswith("\n")


def test_overwriting_leaves_nothing_of_the_old_run(started):
    RunLayout(started.root).records_of(3).write_text(json.dumps(record("z")) + "\n")
    for name in ("summary.json", "posterior.jsonl", "figure.png", "report.html", "notes.txt"):
        (started.root / name).write_text("{}")
    again = RestorationFolder(started.root, 0, overwrite=True)
    again.find({"seed": 1}, "v")
    again.open(text({"seed": 1}, "v"))
    assert {path.name for path in started.root.iterdir()} == {"config.yaml", "notes.txt"}


def test_merging_takes_the_records_of_every_process_and_leaves_one_file(started):
    RestorationFolder(started.root, 2).add(batch(record("0"), record("c")), set())
    assert RunLayout(started.root).records_of(2).is_file()
    assert [one["id"] for one in started.merge()] == ["0", "a", "b", "c"]
    assert [path.name for path in started.root.glob("records*")] == ["records.jsonl"]
    assert started.find(CONFIG, "w") == {(name, 0) for name in "0abc"}


def test_a_summary_that_is_missing_or_damaged_is_none(started):
    assert started.summary() is None
    (started.root / "summary.json").write_text("{")
    assert started.summary() is None
    started.finish({"ä": 1})
    assert started.summary() == {"ä": 1}


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PermissionError, match=r"cannot write to .*file; set output_dir"):
        RestorationFolder(tmp_path / "file" / "deep" / "run", 0).find(CONFIG)


def test_batches_are_pending_until_all_of_them_is_on_record():
    keys = [(name, k) for name in "abc" for k in (0, 1)]
    groups = [range(4), range(4, 6)]
    assert pending(groups, keys, set()) == groups
    assert pending(groups, keys, {*keys[:3]}) == groups
    assert pending(groups, keys, {*keys[:4]}) == groups[1:]
    assert pending(groups, keys, {*keys}) == []


def test_images_are_saved_as_they_are_and_a_failed_restoration_is_not(started):
    started.add(batch(record("c", error="not finite")), set())
    done = batch(record("a"), record("b"))
    saved = np.asarray(Image.open(started.layout.image("a", restoration(0))))
    assert np.array_equal(saved, ((done.x0[0] + 1) * 127.5).round().permute(1, 2, 0).numpy())
    assert not started.layout.image("c", restoration(0)).exists() and started.layout.image("c", TRUTH).exists()


def test_records_with_infinite_values_are_refused(started):
    """JSON has no infinity: a record that holds one is a bug."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        started.add(batch(record("d", psnr=float("inf"))), set())


def test_a_folder_with_records_is_refused_where_nothing_is_resumed(started):
    with pytest.raises(FileExistsError, match="already holds the records of a run; choose another output_dir or add overwrite=true"):
        started.check_unused()
    RestorationFolder(started.root, overwrite=True).check_unused()
    RestorationFolder(started.root / "new").check_unused()
