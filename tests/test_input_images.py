"""Images that users have: folders that hold runs, odd names, newcomers, masks of the photo's size, through the scripts."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from forks import Run
from PIL import Image
from tiny_evaluation import TINY, assert_same, draw_images, evaluate, images, records, results, the_line

pytestmark = pytest.mark.script


def sample(folder: Path, *overrides: str, code: int = 0):
    done = Run(folder, *TINY, *overrides, script="sample.py").wait()
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done


def ids(run: Path) -> list[str]:
    return [record["id"] for record in records(run)]


@pytest.mark.parametrize("where", [".", "**/*.png"])
def test_a_run_does_not_evaluate_its_own_output(where, tmp_path):
    """The second run in the folder of the images takes the same images as the first, and says what it left out."""
    here = draw_images(tmp_path / "faces", 2)
    evaluate(here, f"data.root='{where}'", "output_dir=first")
    assert "already evaluated" in evaluate(here, f"data.root='{where}'", "output_dir=first").stdout
    done = evaluate(here, f"data.root='{where}'", "output_dir=second")
    assert "left out: folders of runs and sweeps: first\n" in done.stdout
    assert_same(here / "second", here / "first")
    assert ids(here / "second") == ["face-00", "face-01"]
    assert "left out: folders of runs and sweeps: first, second\n" in sample(here, f"input='{where}'", "output_dir=third").stdout
    assert ids(here / "third") == ["face-00", "face-01"]


def test_a_namesake_that_joins_changes_no_result(tmp_path):
    here = draw_images(tmp_path / "faces", 2)
    evaluate(tmp_path, "data.root=faces", "operator=inpaint_random", "output_dir=out")
    before, files = results(tmp_path / "out"), images(tmp_path / "out")
    Image.open(here / "face-00.png").convert("L").save(here / "face-00.jpg")
    (here / "sub").mkdir()
    shutil.copy(here / "face-01.png", here / "sub" / "face-00.png")
    done = evaluate(tmp_path, "data.root=faces", "operator=inpaint_random", "output_dir=out")
    assert "2 of 4 restorations are on record" in done.stdout
    after = results(tmp_path / "out")
    assert [record["id"] for record in after] == ["face-00", "face-00.jpg", "face-01", "sub~face-00"]
    assert [record for record in after if record in before] == before
    assert files.items() <= images(tmp_path / "out").items()


def test_a_name_that_is_not_utf8_works_to_the_end(tmp_path):
    """It and names with other odd characters: evaluated, resumed, reported, scored, frozen and compared."""
    odd = [b"caf\xe9.png", "größe.png".encode(), b"a\nb.png", b"100%.png", b"a=1,b~c.png", b"x'y\"z.png", b"-rf.png", b" .png"]
    here = draw_images(tmp_path / "faces", len(odd))
    for path, name in zip(sorted(here.iterdir()), odd, strict=True):
        os.rename(path, os.fsencode(here) + b"/" + name)
    done = evaluate(tmp_path, "data.root=faces", "output_dir=out", "data.freeze=frozen", "num_samples=2")
    assert done.stderr == "" or "error" not in done.stderr
    assert "already evaluated" in evaluate(tmp_path, "data.root=faces", "output_dir=out", "num_samples=2").stdout
    expected = {"caf%E9", "größe", "a%0Ab", "100%25", "a=1,b%7Ec", "x'y%22z", "-rf", " "}
    assert {*ids(tmp_path / "out")} == expected == {path.name for path in (tmp_path / "out" / "images").iterdir()}
    assert (tmp_path / "out" / "report.html").is_file()
    evaluate(tmp_path, "data.measurements=frozen", "output_dir=again", "num_samples=2")
    assert_same(tmp_path / "again", tmp_path / "out")
    done = evaluate(tmp_path, "samples=faces", "truth=faces", "output_dir=scores")
    assert {*ids(tmp_path / "scores")} == expected
    assert "8 images" in done.stdout
    Run(tmp_path, "compare=[out,again]").wait()


def test_a_run_with_ids_of_another_version_is_refused_and_not_mixed(tmp_path):
    """A run over nested folders once had the file's name alone for an id."""
    draw_images(tmp_path / "faces" / "sub", 2)
    evaluate(tmp_path, "data.root=faces", "output_dir=out")
    path = tmp_path / "out" / "records.jsonl"
    path.write_text(path.read_text().replace("sub~face", "face"))
    for folder in (tmp_path / "out" / "images").iterdir():
        folder.rename(folder.with_name(folder.name.replace("sub~", "")))
    before = images(tmp_path / "out")
    assert "face-00" in the_line(evaluate(tmp_path, "data.root=faces", "output_dir=out", code=2))
    assert images(tmp_path / "out") == before


def test_a_mask_of_the_photo_follows_its_crop(tmp_path):
    """measurement=photo with a mask painted over the photo: the small mask knows no pixel that a missing one enters."""
    photo = np.full((48, 80, 3), 90, dtype=np.uint8)
    known = np.ones((48, 80), dtype=bool)
    known[10:20, 30:47] = False
    photo[~known] = 255
    Image.fromarray(photo).save(tmp_path / "photo.png")
    Image.fromarray(known.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    mask = ["operator=inpaint_mask", "operator.path=mask.png"]
    sample(tmp_path, "measurement=photo.png", *mask, "output_dir=degraded")
    sample(tmp_path, "input=photo.png", *mask, "output_dir=clean", "noise_model=none", "solver=score_ald")
    measured = np.asarray(Image.open(tmp_path / "clean" / "images" / "photo" / "measurement.png"))
    assert {*measured.flatten()} == {90, 128} and (measured == 128).any(axis=-1).sum() == 4 * 7


def test_a_kernel_of_the_photo_follows_its_resize(tmp_path):
    draw_images(tmp_path / "faces", 2, (64, 64))
    kernel = np.zeros((64, 64), dtype=np.uint8)
    kernel[28:37, 28:37] = 255
    Image.fromarray(kernel).save(tmp_path / "kernel.png")
    evaluate(tmp_path, "data.root=faces", "operator=deblur_kernel", "operator.path=kernel.png", "output_dir=out", "data.freeze=frozen")
    again = ["data.measurements=frozen", "operator=deblur_kernel", "operator.path=kernel.png", "output_dir=again"]
    evaluate(tmp_path, *again)
    assert_same(tmp_path / "again", tmp_path / "out")


def test_a_large_photo_passes_with_one_line_of_notice(tmp_path):
    """91 megapixels; Pillow itself warns from 89 on, in two lines."""
    Image.new("L", (13_000, 7_000), 77).save(tmp_path / "wide.png", compress_level=1)
    done = sample(tmp_path, "input=wide.png", "output_dir=out", "solver=score_ald")
    assert done.stdout.count("megapixels") == 1 and "wide.png has 91" in done.stdout and "Warning" not in done.stderr
    assert json.loads((tmp_path / "out" / "records.jsonl").read_text())["error"] is None
