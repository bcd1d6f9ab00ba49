"""Which files are training images: what is left out, what is skipped with a reason, and what is refused."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_priors.images.fit import Crop
from diffusion_priors.training.image_store import ImageStore, store_images


def draw(folder: Path, *names: str) -> Path:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((24, 30, 3), i, dtype=np.uint8)).save(folder / name)
    return folder


def store(root: Path | str, cache: Path) -> ImageStore:
    return store_images(str(root), 3, (8, 12), Crop(), cache)


def test_hidden_images_are_left_out_of_a_folder_and_of_a_zip(tmp_path):
    folder = draw(tmp_path / "images", "a.png", "._a.png", ".cache/b.png", "deep/c.png", "deep/.d.png")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, path.relative_to(folder).as_posix())
    for root in (folder, tmp_path / "images.zip"):
        assert store(root, tmp_path / "cache").ids == ["a.png", "deep/c.png"]


def test_what_is_no_file_is_skipped_with_its_reason(tmp_path):
    folder = draw(tmp_path / "images", *(f"{i}.png" for i in range(4)))
    (folder / "link.png").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.png")
    found = store(folder, tmp_path / "cache")
    assert found.skipped == [("link.png", "it is a link to nothing (nowhere)"), ("pipe.png", "it is a named pipe, not a file")]
    assert len(found) == 4 and store(folder, tmp_path / "cache").skipped == found.skipped


def test_postscript_is_skipped_and_handed_to_no_program(tmp_path):
    folder = draw(tmp_path / "images", "a.png", "b.png")
    (folder / "c.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\nshowpage\n")
    assert store(folder, tmp_path / "cache").skipped[0][1].startswith("it is no image of a known format")


def test_training_runs_below_the_images_are_left_out_with_a_notice(tmp_path):
    folder = draw(tmp_path / "images", "a.png", "b.png", "out/validation/step-00000001/samples.png")
    before = store(folder, tmp_path / "cache")
    assert len(before) == 3 and before.notices == []
    for name in ("config.yaml", "metrics.csv"):
        (folder / "out" / name).touch()
    after = store(folder, tmp_path / "cache")
    assert after.ids == ["a.png", "b.png"] and after.notices == [f"left out: folders of runs and sweeps: {folder}/out"]
    with pytest.raises(ValueError, match="out belongs to a run"):
        store(folder / "out", tmp_path / "cache")


@pytest.mark.parametrize("root", ["", " ", "\udce9"])
def test_a_root_that_is_empty_or_not_utf8_is_refused(root, tmp_path, monkeypatch):
    monkeypatch.chdir(draw(tmp_path / "images", "a.png"))
    with pytest.raises(ValueError, match=r"is empty, got|is not UTF-8"):
        store(root, tmp_path / "cache")


def test_a_run_does_not_write_into_its_images(tmp_path):
    from diffusion_priors.training.data import ImageFolder  # imports Lightning

    folder = draw(tmp_path / "images", "a.png")
    for kept in ({"root": str(folder)}, {"root": str(tmp_path / "a.zip"), "validation": str(folder)}):
        data = ImageFolder(**kept)
        with pytest.raises(ValueError, match="would write where its images are"):
            data.check_apart(folder)
        data.check_apart(folder / "out")
