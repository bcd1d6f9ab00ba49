"""The folder of a training run: the newest intact checkpoint, which runs may resume, and how files are written."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
import yaml
from lazy import Lazy
from misfortune import Mischief, break_writing

from diffusion_priors.runs.files import write_whole

if TYPE_CHECKING:
    from diffusion_priors.training.folder import TrainingFolder

checkpoints = Lazy("diffusion_priors.training.checkpoints")
training_folder = Lazy("diffusion_priors.training.folder")

CONFIG = {"seed": 0, "optimiser": {"lr": 0.1}, "steps": 100}


def content(step: int) -> dict:
    """Content like that of Lightning's checkpoints. The tensor is a function of the step."""
    weight = torch.randn((40, 30), generator=torch.Generator().manual_seed(step))
    state = {"network.weight": weight, "network.bias": torch.arange(7)}
    return {"global_step": step, "state_dict": state, "loops": {"done": [1, 2.5, "x", None]}, "prior": {"size": [16, 16]}}


def write(path: Path, step: int) -> Path:
    checkpoints.WholeFiles().save_checkpoint(content(step), path)
    return path


def is_step(found: dict | None, step: int) -> bool:
    if found is None:
        return False
    expected = content(step)
    states = found.pop("state_dict"), expected.pop("state_dict")
    return found == expected and all(torch.equal(states[0][name], tensor) for name, tensor in states[1].items())


@pytest.fixture
def folder(tmp_path) -> TrainingFolder:
    """A run with checkpoints of steps 10, 20 and 30."""
    made = training_folder.TrainingFolder(tmp_path / "run")
    made.open(yaml.safe_dump({"config": CONFIG}), [], False)
    for step in (20, 30, 10):
        write(made.checkpoints.path(step), step)
    return made


# Found


def test_the_newest_checkpoint_is_found(folder):
    found = folder.find(CONFIG, 100)
    assert (found.step, found.damaged) == (30, []) and is_step(checkpoints.read_whole(found.path), 30)


def test_steps_are_ordered_as_numbers_and_other_files_are_ignored(folder):
    root = folder.checkpoints.root
    for step in (99999999, 100000000):
        write(root / f"step-{step}.ckpt", step)
    for name in (
        "step-00000060.ckpt.old.ckpt",
        ".step-00000040.ckpt.x1y2",
        "step-00000050.ckpt.part",
        "step-last.ckpt",
        "step-999999999.ckpt~",
        "last.ckpt",
    ):
        (root / name).write_bytes(b"")
    found = folder.find(CONFIG, 200000000)
    assert (found.step, found.damaged) == (100000000, [])
    assert [step for step, _ in folder.checkpoints.all()] == [100000000, 99999999, 30, 20, 10]


def test_a_folder_without_a_checkpoint_starts_a_new_run(tmp_path):
    folder = training_folder.TrainingFolder(tmp_path / "deep" / "run")
    assert folder.find(CONFIG, 100) is None and not (tmp_path / "deep").exists()
    folder.open(yaml.safe_dump({"config": CONFIG}), [], False)
    assert folder.find(CONFIG | {"seed": 1}, 100) is None  # a run without a checkpoint may be replaced


def cut(whole: bytes, where: random.Random) -> bytes:
    return whole[: where.randrange(1, len(whole))]


def flip(whole: bytes, where: random.Random) -> bytes:
    """One bit in the middle of the tensor, which only the checksum reveals."""
    tensor = content(30)["state_dict"]["network.weight"].numpy().tobytes()
    start = whole.find(tensor)
    assert start > 0
    place = start + len(tensor) // 4 + where.randrange(len(tensor) // 2)
    return whole[:place] + bytes([whole[place] ^ 1 << where.randrange(8)]) + whole[place + 1 :]


DAMAGE = {f"cut {i}": cut for i in range(8)} | {f"flipped {i}": flip for i in range(4)}
DAMAGE |= {
    "empty": lambda whole, where: b"",
    "junk": lambda whole, where: where.randbytes(len(whole)),
    "zeros": lambda whole, where: bytes(len(whole)),
    "zero tail": lambda whole, where: whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2),
    "text": lambda whole, where: b"<html>no</html>",
    "last byte": lambda whole, where: whole[:-1],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_used(kind, folder):
    newest = folder.checkpoints.path(30)
    newest.write_bytes(DAMAGE[kind](newest.read_bytes(), random.Random(kind)))
    found = folder.find(CONFIG, 100)
    assert (found.step, found.damaged) == (20, [newest]) and is_step(checkpoints.read_whole(found.path), 20)


def test_several_damaged_checkpoints_are_reported_newest_first(folder):
    for step in (30, 20):
        folder.checkpoints.path(step).write_bytes(b"")
    found = folder.find(CONFIG, 100)
    assert (found.step, found.damaged) == (10, [folder.checkpoints.path(30), folder.checkpoints.path(20)])


def test_a_damaged_checkpoint_before_an_intact_one_does_not_matter(folder):
    folder.checkpoints.path(20).write_bytes(b"")
    assert folder.find(CONFIG, 100).damaged == []


def test_the_error_is_one_line_if_all_are_damaged(folder):
    for step, path in folder.checkpoints.all():
        path.write_bytes(path.read_bytes()[: 100 * step])
    with pytest.raises(ValueError, match=r"every checkpoint in .*run/checkpoints is damaged; set overwrite=true to restart") as caught:
        folder.find(CONFIG, 100)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_detected_or_changes_nothing(tmp_path):
    """Anywhere in the file: reading gives what was written, or None."""
    path, where = write(tmp_path / "step-1.ckpt", 1), random.Random(0)
    whole, refused = path.read_bytes(), 0
    for _ in range(200):
        place = where.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << where.randrange(8)]) + whole[place + 1 :])
        found = checkpoints.read_whole(path)
        assert found is None or is_step(found, 1)
        refused += found is None
    assert refused > 100


@pytest.mark.parametrize("what", [[1, 2], {"weight": torch.ones(2)}, {}, torch.ones(3)], ids=["list", "weights", "empty", "tensor"])
def test_a_file_that_is_not_a_training_checkpoint_is_ignored(what, folder):
    torch.save(what, folder.checkpoints.path(30))
    assert folder.find(CONFIG, 100).step == 20


def test_code_in_a_checkpoint_is_not_run(folder, tmp_path):
    torch.save(content(30) | {"extra": Mischief(tmp_path / "made")}, folder.checkpoints.path(30))
    assert folder.find(CONFIG, 100).step == 20
    assert not (tmp_path / "made").exists()
    torch.load(folder.checkpoints.path(30), weights_only=False)
    assert (tmp_path / "made").exists()  # without the protection it runs


def test_reading_a_step_gives_its_checkpoint_or_an_error(folder):
    assert is_step(folder.checkpoints.read(20), 20)
    folder.checkpoints.path(20).write_bytes(b"")
    for step in (20, 25):
        with pytest.raises(ValueError, match=rf"step-000000{step}\.ckpt is missing or damaged"):
            folder.checkpoints.read(step)


# Which runs may resume


def leaves(node: object, path: str = "") -> dict[str, object]:
    """{dotted path: value} of every value in a nested dictionary."""
    if not isinstance(node, dict):
        return {path: node}
    return {key: value for name, inner in node.items() for key, value in leaves(inner, f"{path}.{name}".lstrip(".")).items()}


def changed(node: dict, path: str, value: object) -> dict:
    """A copy of `node` with `value` at the dotted `path`."""
    name, _, rest = path.partition(".")
    return node | {name: changed(node[name], rest, value) if rest else value}


MAY_DIFFER = ("trainer.", "validation.", "export.", "logger.", "sampler.", "data.cache", "data.workers")
MAY_DIFFER += ("steps", "accumulate", "checkpoint_every", "keep_checkpoints", "log_every", "max_hours", "output_dir", "overwrite")


@pytest.fixture(scope="module")
def config() -> dict:
    """train.yaml, composed and resolved."""
    import hydra
    from omegaconf import OmegaConf

    from diffusion_priors.conf import PROJECT

    with hydra.initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        composed = hydra.compose("train", overrides=["data.root=images", "logger=wandb"])
        return OmegaConf.to_container(composed, resolve=True)


@pytest.fixture
def composed(config, tmp_path) -> TrainingFolder:
    """A run of that configuration, with a checkpoint of step 10."""
    made = training_folder.TrainingFolder(tmp_path / "run")
    made.open(yaml.safe_dump({"config": config, "overrides": ["seed=0"]}), [], False)
    write(made.checkpoints.path(10), 10)
    return made


def another(value: object) -> object:
    """A different value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return [*value, 1]
    return value * 2 + 1 if isinstance(value, int | float) else "other"


def refusal(folder: TrainingFolder, config: dict) -> str | None:
    """Why the folder refuses to resume with `config`; None if it resumes at step 10."""
    try:
        assert folder.find(config, 100).step == 10
    except ValueError as error:
        return str(error)
    return None


def test_every_key_is_refused_by_name_or_may_differ(config, composed):
    """Every key of train.yaml, changed alone. A refusal is one line with the key, both values and what to do."""
    values = leaves(config)
    wrong = []
    for path, was in values.items():
        now = another(was)
        message = refusal(composed, changed(config, path, now))
        if path.startswith(MAY_DIFFER):
            fine = message is None
        else:
            told = ("holds a run with another configuration", f": {path} was {was!r}, is {now!r}; ", "another output_dir", "overwrite=true")
            fine = message is not None and "\n" not in message and all(one in message for one in told)
        if not fine:
            wrong.append((path, message))
    assert wrong == []
    assert len(values) > 100 and sum(not path.startswith(MAY_DIFFER) for path in values) > 40


def test_one_error_lists_every_change_and_the_same_configuration_passes(config, composed):
    assert composed.find(config, 100).step == 10
    other = changed(changed(changed(config, "seed", 3), "data.root", "elsewhere"), "trainer.devices", 4)
    with pytest.raises(ValueError, match=r"data\.root was 'images', is 'elsewhere'; seed was 0, is 3; choose"):
        composed.find(other, 100)


def test_an_added_or_removed_key_is_a_change(config, composed):
    with pytest.raises(ValueError, match=r"lr_schedule\.last was None, is 0\.5"):
        composed.find(config | {"lr_schedule": config["lr_schedule"] | {"last": 0.5}}, 100)
    without = {key: value for key, value in config["weighting"].items() if key != "gamma"}
    with pytest.raises(ValueError, match=r"weighting\.gamma was 5\.0, is None"):
        composed.find(config | {"weighting": without}, 100)


def test_fewer_steps_than_already_done_are_refused(folder):
    with pytest.raises(ValueError, match=r"is already at step 30, steps=29 is less; set steps=30 or more"):
        folder.find(CONFIG, 29)
    assert folder.find(CONFIG, 30).step == 30


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(PermissionError, match="set output_dir"):
        training_folder.TrainingFolder(tmp_path / "file" / "run").find(CONFIG, 100)


# Opened


def fill(folder: TrainingFolder) -> None:
    """The files of a run, and a note of the user."""
    for path in (folder.metrics, folder.validation / "step-00000010" / "samples.png", folder.prior / "card.yaml", folder.root / "note.txt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("training: {steps: 10}")


def test_a_prior_of_fewer_steps_or_with_a_damaged_card_does_not_count_as_exported(folder):
    fill(folder)
    assert folder.exported(10) and not folder.exported(30)
    for text in ("", "name: x", "training: 10", "{"):
        (folder.prior / "card.yaml").write_text(text)
        assert not folder.exported(10)


def test_overwrite_deletes_only_the_files_of_the_earlier_run(folder):
    fill(folder)
    assert folder.exported(10)
    other = CONFIG | {"seed": 7}
    folder.open(yaml.safe_dump({"config": other}), [], True)
    assert sorted(path.name for path in folder.root.rglob("*")) == ["config.yaml", "note.txt"]
    assert not folder.exported(10) and folder.find(CONFIG, 100) is None
    assert yaml.safe_load(folder.config.read_text())["config"] == other


def test_without_overwrite_nothing_is_deleted(folder):
    fill(folder)
    before = {path: path.read_bytes() for path in folder.root.rglob("*") if path.is_file()}
    folder.open(yaml.safe_dump({"config": CONFIG | {"steps": 500}}), [], False)
    after = {path: path.read_bytes() for path in folder.root.rglob("*") if path.is_file()}
    assert {path for path in after if after[path] != before[path]} == {folder.config} and after.keys() == before.keys()
    assert folder.find(CONFIG, 500).step == 30


def test_skipped_images_are_listed(folder):
    skipped = [("a, b/1.png", "it is 3 x 4, smaller than 16 x 16"), ("ü.jpg", "cannot identify image file")]
    folder.open("config: {}", skipped, False)
    assert list(csv.reader(folder.skipped.open(encoding="utf-8"))) == [["image", "reason"], *map(list, skipped)]


def test_every_file_name_can_be_listed(folder):
    skipped = [('say "cheese".png', 'it is "no" image'), ("line\nbreak.png", "broken"), ("back\\slash.png", "broken")]
    folder.open("config: {}", skipped, False)
    assert list(csv.reader(folder.skipped.open(encoding="utf-8", newline=""))) == [["image", "reason"], *map(list, skipped)]


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_list_of_skipped_images_is_that_of_the_present_run(overwrite, folder):
    """Images that were fixed are no longer listed."""
    folder.open("config: {}", [("a.png", "broken")], False)
    folder.open("config: {}", [], overwrite)
    assert not folder.skipped.exists()


# Written


@pytest.mark.parametrize("before", [False, True], ids=["new", "over an old one"])
@pytest.mark.parametrize("how", ["write", "rename"])
def test_a_checkpoint_is_written_whole_or_not_at_all(how, before, tmp_path, monkeypatch):
    path = tmp_path / "deep" / "step-1.ckpt"
    if before:
        write(path, 1)
    break_writing(monkeypatch, path.name, how)
    with pytest.raises((OSError, RuntimeError)):
        write(path, 2)
    assert list(path.parent.iterdir()) == [path] * before
    assert not before or is_step(checkpoints.read_whole(path), 1)
    monkeypatch.undo()
    write(path, 2)
    assert is_step(checkpoints.read_whole(path), 2) and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("room", [0, 50, 300, 3000, 6000])
def test_a_full_disk_is_an_os_error_with_what_to_do(room, tmp_path, monkeypatch):
    break_writing(monkeypatch, "step-1.ckpt", room=room)
    with pytest.raises(OSError, match=r"cannot write .*step-1\.ckpt: .*make room or set another output_dir"):
        write(tmp_path / "step-1.ckpt", 1)


def test_what_a_killed_process_left_half_written_is_deleted(folder, tmp_path, monkeypatch):
    """In every folder of the run, under the names that `write_whole` gives; other hidden files stay."""

    def half_written(stream):
        stream.write(b"half")
        stream.flush()
        raise ZeroDivisionError

    places = [folder.root, folder.checkpoints.root, folder.prior, folder.validation / "step-00000010"]
    monkeypatch.setattr("os.unlink", lambda name: None)  # the process is gone
    for place in places:
        with pytest.raises(ZeroDivisionError):
            write_whole(place / "file.png", half_written)
        (place / ".kept").touch()
    monkeypatch.undo()
    assert len([path for path in folder.root.rglob(".file.png.*") if path.read_bytes() == b"half"]) == len(places)
    folder.open(yaml.safe_dump({"config": CONFIG}), [], False)
    assert {path.name for place in places for path in place.glob(".*")} == {".kept"}
