"""The folder of a run: resumed or refused, overwritten, shared, and cleaned up after a kill."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from sweep_folder import record

from diffusion_priors.evaluation.restoration.batches import Restored
from diffusion_priors.evaluation.restoration.folder import RestorationFolder, pending
from diffusion_priors.evaluation.summary import summarise
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
    other = RestorationFolder(started.root, 1)
    other.add(batch(record("c")), set())
    with other.layout.records_of(1).open("a") as stream:
        stream.write('{"id": "d"')
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


@pytest.mark.parametrize("content", ["{", "{}", "[]", "3", "null", "[" * 10**5, '{"complete": true, "records": 2}', '{"psnr": NaN}'])
def test_a_summary_that_is_missing_or_damaged_is_made_again(started, content):
    started.find(CONFIG, "w")
    assert started.complete_summary() is None
    started.layout.summary.write_text(content)
    assert started.complete_summary() is None
    summary = summarise("ä", started.sound, [], ("psnr",), 1)
    started.finish(summary)
    assert started.complete_summary() == summary
    for changed in ({"complete": False}, {"records": 3}):
        started.finish(summary | changed)
        assert started.complete_summary() is None


def cut(path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def pretend(path) -> None:
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n")


def brighten(path) -> None:
    Image.fromarray(np.asarray(Image.open(path)) // 2 + 100).save(path)


def enlarge(path) -> None:
    Image.open(path).resize((8, 2)).save(path)


def pipe(path) -> None:
    path.unlink()
    os.mkfifo(path)


HARM = {
    "deleted": (lambda path: path.unlink(), "is missing"),
    "truncated": (cut, "is damaged"),
    "emptied": (lambda path: path.write_bytes(b""), "is damaged"),
    "another format": (pretend, r"is damaged \(it is no PNG\)"),
    "altered": (brighten, "is not the image that was written"),
    "another size": (enlarge, "is not the image that was written"),
    "a pipe": (pipe, r"is damaged \(it is no regular file\)"),
}


@pytest.mark.parametrize("kind", [TRUTH, restoration(0)])
@pytest.mark.parametrize("harm", HARM)
def test_images_that_are_not_what_was_written_are_named_and_computed_again_on_request(started, harm, kind):
    do, says = HARM[harm]
    do(started.layout.image("b", kind))
    with pytest.raises(ValueError, match=rf"{kind}\.png of b {says}.*; add repair=true to compute this again, or overwrite=true"):
        RestorationFolder(started.root).find(CONFIG, "w")
    again = RestorationFolder(started.root, repair=True)
    assert again.find(CONFIG, "w") == {("a", 0)}
    again.layout.posterior.write_text("of samples that are computed again\n")
    again.open(text(CONFIG, "w"))
    again.add(batch(record("b")), {("a", 0)})
    assert not again.layout.posterior.exists()
    assert RestorationFolder(started.root).find(CONFIG, "w") == {("a", 0), ("b", 0)}


def test_an_image_that_was_only_encoded_again_is_what_was_written(started):
    path = started.layout.image("b", restoration(0))
    Image.open(path).save(path, compress_level=0)
    assert started.find(CONFIG, "w") == {("a", 0), ("b", 0)}


def test_a_damaged_record_is_named_and_computed_again_on_request(started):
    lines = started.layout.records.read_text().splitlines()
    started.layout.records.write_text(f"{lines[0].replace('null', 'NaN', 1)}\n{lines[1]}\n")
    with pytest.raises(ValueError, match=r"line 1 of .*records\.jsonl is damaged \(NaN is not JSON\); add repair=true"):
        started.find(CONFIG, "w")
    again = RestorationFolder(started.root, repair=True)
    assert again.find(CONFIG, "w") == {("b", 0)}
    again.open(text(CONFIG, "w"))
    assert [one["id"] for one in again.merge()] == ["b"]


def test_a_record_without_a_metric_is_damaged(started):
    with pytest.raises(ValueError, match=r"line 1 of .* is damaged \(it lacks the key niqe\); line 2 of"):
        started.find(CONFIG, "w", ("psnr", "niqe"))
    assert started.find(CONFIG, "w", ("psnr", "ssim", "lpips")) == {("a", 0), ("b", 0)}


def test_of_records_without_hashes_the_restoration_must_be_whole(started):
    """Earlier versions wrote such records."""
    lines = [json.loads(line) for line in started.layout.records.read_text().splitlines()]
    for line in lines:
        del line["hashes"]
    started.layout.records.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert len(started.find(CONFIG, "w")) == 2
    cut(started.layout.image("a", restoration(0)))
    with pytest.raises(ValueError, match=r"restoration-0\.png of a is damaged"):
        started.find(CONFIG, "w")


def test_a_run_that_lost_something_on_the_way_is_not_complete(started):
    records = started.merge()
    started.check_kept(records, [("a", 0), ("b", 0)])
    with pytest.raises(ValueError, match=r"records were deleted during the run: sample 1 of a; the same command computes them again"):
        started.check_kept(records, [("a", 0), ("a", 1), ("b", 0)])
    started.layout.image("a", TRUTH).unlink()
    with pytest.raises(ValueError, match=r"images were changed during the run: truth\.png of a is missing; add repair=true"):
        started.check_kept(records, ())


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
