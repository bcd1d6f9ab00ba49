"""Finding: every image that an input names, what is left out and why, and what is refused."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from diffusion_priors.images.find import find_images, search
from diffusion_priors.runs.layout import RunLayout, is_run


@pytest.fixture
def tree(tmp_path) -> Path:
    for name in ("b.png", "a.JPG", "c.txt", "deep/er/d.webp", "deep/b.png", "none/readme.md", "[x]/e.png"):
        write(tmp_path / name)
    return tmp_path


def write(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def run_in(folder: Path) -> RunLayout:
    """What a restoration run leaves, as far as names go."""
    layout = RunLayout(folder)
    write(layout.config, layout.records, layout.figure, layout.image("a", "truth"), layout.image("a", "restoration-0"))
    return layout


def names(where: str | list[str], root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in find_images(where).paths]


def test_a_path_to_a_file_gives_that_file(tree):
    assert names(str(tree / "b.png"), tree) == ["b.png"]
    assert names(str(tree / "c.txt"), tree) == ["c.txt"]  # a named file is taken whatever its suffix


def test_a_folder_is_searched_recursively_in_sorted_order(tree):
    assert names(str(tree), tree) == ["[x]/e.png", "a.JPG", "b.png", "deep/b.png", "deep/er/d.webp"]


def test_a_glob_is_matched_in_sorted_order(tree):
    assert names(str(tree / "*.png"), tree) == ["b.png"]
    assert names(str(tree / "**" / "*.png"), tree) == ["[x]/e.png", "b.png", "deep/b.png"]
    assert names(str(tree / "deep" / "?.png"), tree) == ["deep/b.png"]


def test_brackets_in_an_existing_name_are_not_a_pattern(tree):
    assert names(str(tree / "[x]"), tree) == ["[x]/e.png"]
    assert names(str(tree / "[x]" / "e.png"), tree) == ["[x]/e.png"]


def test_a_list_keeps_its_order(tree):
    found = names([str(tree / "deep"), str(tree / "b.png"), str(tree / "a.*")], tree)
    assert found == ["deep/b.png", "deep/er/d.webp", "b.png", "a.JPG"]


@pytest.mark.parametrize("where", ["missing.png", "missing/", "*.gif", "deep/*.jpg", "none", "~nobody-here/a.png"])
def test_the_error_names_the_place_without_images(where, tree, monkeypatch):
    monkeypatch.chdir(tree)
    with pytest.raises(FileNotFoundError, match="no image") as caught:
        find_images(where)
    assert where in str(caught.value)


def test_an_entry_of_a_list_without_images_is_an_error(tree):
    with pytest.raises(FileNotFoundError, match="none"):
        find_images([str(tree / "b.png"), str(tree / "none")])


@pytest.mark.parametrize("where", ["", " ", "\n", [], [""], ["b.png", ""]])
def test_an_empty_path_is_refused_and_not_the_current_folder(where, tree, monkeypatch):
    monkeypatch.chdir(tree)
    with pytest.raises(ValueError, match=r"is empty, got|no image is given"):
        find_images(where)


@pytest.mark.parametrize("where", ["a\0b.png", "x" * 300 + ".png", "y/" * 3000])
def test_a_path_that_no_file_can_have_is_refused(where):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        find_images(where)
    assert len(str(caught.value)) < 200 or isinstance(caught.value, FileNotFoundError)


def test_a_path_that_is_not_utf8_is_refused_by_name(tmp_path):
    """config.yaml could not hold it. A name of that kind below a folder works: its id is made of plain characters."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    write(path)
    with pytest.raises(ValueError, match=r"caf\\udce9\.png' is not UTF-8"):
        find_images(str(path))
    found = find_images(str(tmp_path))
    assert found.paths == [path] and found.ids == ["caf%E9"]


# What is left out


def test_hidden_files_and_folders_are_left_out(tree):
    write(tree / "._b.png", tree / ".hidden" / "h.png", tree / "deep" / ".DS.png", tree / "deep" / ".git" / "x.png")
    assert names(str(tree), tree) == ["[x]/e.png", "a.JPG", "b.png", "deep/b.png", "deep/er/d.webp"]
    assert names(str(tree / ".hidden"), tree) == [".hidden/h.png"]  # a folder that is named itself is searched


def test_links_to_folders_are_left_out_with_a_notice_and_loops_end(tree):
    (tree / "deep" / "loop").symlink_to(tree)
    (tree / "again").symlink_to(tree / "deep")
    found = find_images(str(tree))
    assert len(found.paths) == 5 and found.notices == [f"left out: links to folders: {tree}/again, {tree}/deep/loop"]


def test_links_to_images_are_images(tree):
    (tree / "none" / "link.png").symlink_to(tree.parent / "elsewhere.png")
    write(tree.parent / "elsewhere.png")
    assert "none/link.png" in names(str(tree), tree)


@pytest.mark.parametrize("kind", ["dangling", "loop", "pipe", "socket"])
def test_what_has_the_name_of_an_image_and_is_no_file_is_refused_by_name(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path("images/a.png"))
    path = Path("images/b.png")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    else:
        path.symlink_to("nowhere" if kind == "dangling" else "b.png")
    for where in ("images", "images/*.png", "images/b.png", ["images/a.png", "images/b.png"]):
        with pytest.raises(ValueError, match=r"cannot use the image images/b\.png: it is a (link to nothing|named pipe|socket)"):
            find_images(where)
    found = search(Path("images"))  # training lists them with the images that it skips
    assert [path for path, _ in found.unusable] == [path] and found.paths == [Path("images/a.png")]


def test_a_folder_with_the_name_of_an_image_is_a_folder(tmp_path):
    write(tmp_path / "a.png" / "b.png")
    assert names(str(tmp_path), tmp_path) == ["a.png/b.png"]


# The results of runs


RUNS = {
    "a run": ["config.yaml", "records.jsonl", "figure.png", "images/a/truth.png"],
    "a run of two processes": ["config.yaml", "records.1.jsonl", "images/a/truth.png"],
    "a run that was killed before its first record": ["config.yaml", "images/a/truth.png"],
    "a run without its configuration": ["records.jsonl", "images/a/truth.png", "figure.png"],
    "a finished run without records": ["config.yaml", "summary.json", "figure.png"],
    "draws of the prior": ["config.yaml", "images/unconditional/restoration-3.png"],
    "a training run": ["config.yaml", "metrics.csv", "validation/step-00000500/samples.png"],
    "a young training run": ["config.yaml", "checkpoints/step-1.ckpt", "prior/samples.png"],
    "an exact posterior": ["config.yaml", "exact_posterior.json", "a.png"],
    "a sweep": ["leaderboard.csv", "leaderboard.html", "plots/psnr.png", "table1.png"],
    "a sweep of exact posteriors": ["report.html", "table.csv", "plots/maps.png"],
}


@pytest.mark.parametrize("files", RUNS.values(), ids=RUNS)
def test_folders_of_runs_are_left_out_with_a_notice(files, tmp_path):
    write(tmp_path / "a.png", tmp_path / "b" / "c.png", *(tmp_path / "b" / "out" / file for file in files))
    assert is_run(tmp_path / "b" / "out")
    for where in (str(tmp_path), str(tmp_path / "**" / "*.png")):
        found = find_images(where)
        assert [path.name for path in found.paths] == ["a.png", "c.png"]
        assert found.notices == [f"left out: folders of runs and sweeps: {tmp_path}/b/out"]
    with pytest.raises(
        ValueError, match=r"out belongs to a run or a sweep; name its images themselves, as in '.*out/images/\*/truth\.png'"
    ):
        find_images(str(tmp_path / "b" / "out"))


@pytest.mark.parametrize(
    "files", [["config.yaml", "a.png"], ["config.yaml", "images/a.png"], ["config.yaml", "images/cats/a.png"], ["report.html", "a.png"]]
)
def test_other_folders_are_searched(files, tmp_path):
    write(*(tmp_path / "data" / file for file in files))
    assert len(find_images(str(tmp_path / "data")).paths) == len(find_images(str(tmp_path)).paths) == 1


def test_the_images_of_runs_can_be_named_themselves(tmp_path):
    run_in(tmp_path / "one")
    run_in(tmp_path / "two")
    found = find_images(str(tmp_path / "*" / "images" / "*" / "truth.png"))
    assert found.ids == ["one~images~a~truth", "two~images~a~truth"] and found.notices == []
    assert find_images(str(tmp_path / "one" / "images" / "a")).ids == ["restoration-0", "truth"]
    with pytest.raises(ValueError, match=r"belongs to a run .*'.*one/images/\*/truth\.png'"):
        find_images(str(tmp_path / "one" / "images"))


def test_a_shallow_glob_does_not_take_the_results_of_a_run(tmp_path):
    write(tmp_path / "faces" / "a.png")
    run_in(tmp_path / "out")
    assert names(str(tmp_path / "*" / "*.png"), tmp_path) == ["faces/a.png"]


@pytest.mark.parametrize("output", ["faces", "faces/../faces", "."])
def test_a_run_does_not_write_where_its_images_are(output, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path("faces/a.png"), Path("images/b.png"), Path("figure.png"))
    where = {".": ["images", "images/b.png", "images/*.png", "figure.png", "."]}.get(output, ["faces", "./faces"])
    for one in where:
        with pytest.raises(ValueError, match=r"would write where its images are, at .*; choose another output_dir"):
            find_images(one).check_apart(Path(output))
    for one in ("faces", "faces/a.png", "faces/*.png", "images"):
        find_images(one).check_apart(Path("faces/out"))
        find_images(one).check_apart(Path("out"))


# Ids


def test_an_image_has_the_same_id_however_it_is_named(tree, monkeypatch):
    monkeypatch.chdir(tree)
    for where in (".", str(tree), "**/*.*", ["."]):
        found = find_images(where)
        ids = dict(zip(found.paths, found.ids, strict=True))
        assert ids[next(path for path in ids if path.name == "d.webp")] == "deep~er~d.webp"
    assert find_images("deep/b.png").ids == find_images(["deep/b.png"]).ids == find_images("deep/*.png").ids == ["b"]


@pytest.mark.parametrize("newcomer", ["a.jpg", "sub/a.png", "sub/a.jpg", "a.png.png", "A/a.png", "a_.png"])
def test_no_id_changes_when_another_image_joins(newcomer, tmp_path):
    write(tmp_path / "a.png", tmp_path / "b.jpg", tmp_path / "s" / "a.png")
    before = dict(zip(*(lambda found: (found.paths, found.ids))(find_images(str(tmp_path))), strict=True))
    write(tmp_path / newcomer)
    after = dict(zip(*(lambda found: (found.paths, found.ids))(find_images(str(tmp_path))), strict=True))
    assert len({*after.values()}) == len(after) == 4 and {path: after[path] for path in before} == before


def test_an_image_given_twice_is_refused(tree, monkeypatch):
    monkeypatch.chdir(tree)
    (tree / "none" / "link.png").symlink_to(tree / "b.png")
    for where in (["b.png", "a.JPG", "deep/../b.png"], "**/*.png", ["none", "b.png"]):
        with pytest.raises(ValueError, match=r"b\.png is given twice"):
            find_images(where).ids  # noqa: B018 - the property raises


@pytest.mark.parametrize(("one", "two"), [("x/a.png", "y/a.png"), ("x/a.png", "y/A.png"), ("x/é.png", "y/é.png")])
def test_two_images_that_would_share_a_folder_are_refused(one, two, tmp_path):
    """Some file systems do not keep A and a apart, or é written in one character and in two."""
    write(tmp_path / one, tmp_path / two)
    with pytest.raises(ValueError, match=r"would share the id .*; give the folder that holds both, or rename one"):
        find_images([str(tmp_path / one), str(tmp_path / two)]).ids  # noqa: B018
    assert len(find_images(str(tmp_path)).ids) == 2
