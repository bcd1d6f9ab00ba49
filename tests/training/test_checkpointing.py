"""Going on with a run: the newest good checkpoint, only the same run, and no step on record twice."""

import csv
import random
from pathlib import Path

import hydra
import pytest
import pytorch_lightning as pl
import torch
import yaml
from misfortune import Mischief, break_writing
from omegaconf import OmegaConf
from tiny_prior import tiny_prior, weights
from tiny_training import Batches, Keep, batches, fit, training_of

from diffusion_priors.conf import PROJECT
from diffusion_priors.training.callbacks import Checkpoints, Watch, average
from diffusion_priors.training.checkpoints import CheckpointFolder, WholeFiles, read_whole
from diffusion_priors.training.folder import TrainingFolder
from diffusion_priors.training.journal import TrainingLog

CONFIG = {"seed": 0, "optimiser": {"lr": 0.1}, "steps": 100}


def content(step: int) -> dict:
    """Much like Lightning's; the tensor is a function of the step."""
    weight = torch.randn((40, 30), generator=torch.Generator().manual_seed(step))
    state = {"network.weight": weight, "network.bias": torch.arange(7)}
    return {"global_step": step, "state_dict": state, "loops": {"done": [1, 2.5, "x", None]}, "prior": {"size": [16, 16]}}


def write(path: Path, step: int) -> Path:
    WholeFiles().save_checkpoint(content(step), path)
    return path


def is_step(found: dict | None, step: int) -> bool:
    if found is None:
        return False
    expected = content(step)
    states = found.pop("state_dict"), expected.pop("state_dict")
    return found == expected and all(torch.equal(states[0][name], tensor) for name, tensor in states[1].items())


@pytest.fixture
def folder(tmp_path) -> TrainingFolder:
    """A run with checkpoints of the steps 10, 20 and 30."""
    made = TrainingFolder(tmp_path / "run")
    made.open(yaml.safe_dump({"config": CONFIG}), [], False)
    for step in (20, 30, 10):
        write(made.checkpoints.path(step), step)
    return made


# Found


def test_the_newest_checkpoint_is_found(folder):
    found = folder.find(CONFIG, 100)
    assert (found.step, found.damaged) == (30, []) and is_step(read_whole(found.path), 30)


def test_steps_are_ordered_as_numbers_and_nothing_else_is_a_checkpoint(folder):
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


def test_a_folder_without_a_checkpoint_is_begun(tmp_path):
    folder = TrainingFolder(tmp_path / "deep" / "run")
    assert folder.find(CONFIG, 100) is None and not (tmp_path / "deep").exists()
    folder.open(yaml.safe_dump({"config": CONFIG}), [], False)
    assert folder.find(CONFIG | {"seed": 1}, 100) is None  # a run that got nowhere binds nobody


def cut(whole: bytes, where: random.Random) -> bytes:
    return whole[: where.randrange(1, len(whole))]


def flip(whole: bytes, where: random.Random) -> bytes:
    """One bit in the middle of the tensor, which nothing but its checksum tells."""
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
def test_a_damaged_checkpoint_is_told_and_the_one_before_it_taken(kind, folder):
    newest = folder.checkpoints.path(30)
    newest.write_bytes(DAMAGE[kind](newest.read_bytes(), random.Random(kind)))
    found = folder.find(CONFIG, 100)
    assert (found.step, found.damaged) == (20, [newest]) and is_step(read_whole(found.path), 20)


def test_several_damaged_ones_are_told_newest_first(folder):
    for step in (30, 20):
        folder.checkpoints.path(step).write_bytes(b"")
    found = folder.find(CONFIG, 100)
    assert (found.step, found.damaged) == (10, [folder.checkpoints.path(30), folder.checkpoints.path(20)])


def test_a_damaged_one_in_the_middle_is_no_matter(folder):
    folder.checkpoints.path(20).write_bytes(b"")
    assert folder.find(CONFIG, 100).damaged == []


def test_where_all_are_damaged_one_line_says_so(folder):
    for step, path in folder.checkpoints.all():
        path.write_bytes(path.read_bytes()[: 100 * step])
    with pytest.raises(ValueError, match=r"every checkpoint in .*run/checkpoints is damaged; set overwrite=true to restart") as caught:
        folder.find(CONFIG, 100)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_found_or_changes_nothing(tmp_path):
    """Anywhere in the file: what is read is what was written, or None."""
    path, where = write(tmp_path / "step-1.ckpt", 1), random.Random(0)
    whole, refused = path.read_bytes(), 0
    for _ in range(200):
        place = where.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << where.randrange(8)]) + whole[place + 1 :])
        found = read_whole(path)
        assert found is None or is_step(found, 1)
        refused += found is None
    assert refused > 100


@pytest.mark.parametrize("what", [[1, 2], {"weight": torch.ones(2)}, {}, torch.ones(3)], ids=["list", "weights", "empty", "tensor"])
def test_a_file_that_is_no_training_checkpoint_is_left_out(what, folder):
    torch.save(what, folder.checkpoints.path(30))
    assert folder.find(CONFIG, 100).step == 20


def test_code_in_a_checkpoint_is_not_run(folder, tmp_path):
    torch.save(content(30) | {"extra": Mischief(tmp_path / "made")}, folder.checkpoints.path(30))
    assert folder.find(CONFIG, 100).step == 20
    assert not (tmp_path / "made").exists()
    torch.load(folder.checkpoints.path(30), weights_only=False)
    assert (tmp_path / "made").exists()  # it would have


def test_a_checkpoint_is_read_by_its_step_or_refused(folder):
    assert is_step(folder.checkpoints.read(20), 20)
    folder.checkpoints.path(20).write_bytes(b"")
    for step in (20, 25):
        with pytest.raises(ValueError, match=rf"step-000000{step}\.ckpt is missing or damaged"):
            folder.checkpoints.read(step)


# The same run


def leaves(node: object, path: str = "") -> dict[str, object]:
    if not isinstance(node, dict):
        return {path: node}
    return {key: value for name, inner in node.items() for key, value in leaves(inner, f"{path}.{name}".lstrip(".")).items()}


def changed(node: dict, path: str, value: object) -> dict:
    """A copy of `node` with `value` at the dotted `path`."""
    name, _, rest = path.partition(".")
    return node | {name: changed(node[name], rest, value) if rest else value}


with hydra.initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
    WHOLE = OmegaConf.to_container(hydra.compose("train", overrides=["data.root=images", "logger=wandb"]), resolve=True)
FREE = ("trainer.", "validation.", "export.", "logger.", "data.cache", "data.workers")
FREE += ("steps", "accumulate", "checkpoint_every", "keep_checkpoints", "log_every", "max_hours", "output_dir", "overwrite")


@pytest.fixture
def composed(tmp_path) -> TrainingFolder:
    made = TrainingFolder(tmp_path / "run")
    made.open(OmegaConf.to_yaml(OmegaConf.create({"config": WHOLE, "overrides": ["seed=0"]})), [], False)
    write(made.checkpoints.path(10), 10)
    return made


@pytest.mark.parametrize("path", [path for path in leaves(WHOLE) if not path.startswith("transition")])
def test_a_key_may_change_where_nothing_learned_depends_on_it(path, composed):
    """Every key of train.yaml, one at a time: refused with its name, what it was and what it is, or let pass."""
    was = leaves(WHOLE)[path]
    now = (
        not was
        if isinstance(was, bool)
        else [*was, 1]
        if isinstance(was, list)
        else was * 2 + 1
        if isinstance(was, int | float)
        else "other"
    )
    config = changed(WHOLE, path, now)
    if path.startswith(FREE):
        assert composed.find(config, 100).step == 10
        return
    with pytest.raises(ValueError, match="holds a run with another configuration") as caught:
        composed.find(config, 100)
    told = str(caught.value)
    assert f": {path} was {was!r}, is {now!r}; " in told and "\n" not in told
    assert "another output_dir" in told and "overwrite=true" in told


def test_every_change_is_told_at_once_and_the_same_again_passes(composed):
    assert composed.find(WHOLE, 100).step == 10
    config = changed(changed(changed(WHOLE, "seed", 3), "data.root", "elsewhere"), "trainer.devices", 4)
    with pytest.raises(ValueError, match=r"data\.root was 'images', is 'elsewhere'; seed was 0, is 3; choose"):
        composed.find(config, 100)


def test_a_key_that_came_or_went_is_a_change(composed):
    with pytest.raises(ValueError, match=r"lr_schedule\.last was None, is 0\.5"):
        composed.find(WHOLE | {"lr_schedule": WHOLE["lr_schedule"] | {"last": 0.5}}, 100)
    without = {key: value for key, value in WHOLE["weighting"].items() if key != "gamma"}
    with pytest.raises(ValueError, match=r"weighting\.gamma was 5\.0, is None"):
        composed.find(WHOLE | {"weighting": without}, 100)


def test_fewer_steps_than_were_done_are_refused(folder):
    with pytest.raises(ValueError, match=r"is already at step 30, steps=29 is less; set steps=30 or more"):
        folder.find(CONFIG, 29)
    assert folder.find(CONFIG, 30).step == 30


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(PermissionError, match="set output_dir"):
        TrainingFolder(tmp_path / "file" / "run").find(CONFIG, 100)


# Opened


def fill(folder: TrainingFolder) -> None:
    """What a run leaves, and a note of the user's."""
    for path in (folder.metrics, folder.validation / "step-00000010" / "samples.png", folder.prior / "card.yaml", folder.root / "note.txt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("training: {steps: 10}")


def test_a_prior_of_fewer_steps_or_with_a_damaged_card_is_not_that_of_the_run(folder):
    fill(folder)
    assert folder.exported(10) and not folder.exported(30)
    for text in ("", "name: x", "training: 10", "{"):
        (folder.prior / "card.yaml").write_text(text)
        assert not folder.exported(10)


def test_overwrite_takes_away_what_an_earlier_run_left_and_nothing_else(folder):
    fill(folder)
    assert folder.exported(10)
    other = CONFIG | {"seed": 7}
    folder.open(yaml.safe_dump({"config": other}), [], True)
    assert sorted(path.name for path in folder.root.rglob("*")) == ["config.yaml", "note.txt"]
    assert not folder.exported(10) and folder.find(CONFIG, 100) is None
    assert yaml.safe_load(folder.config.read_text())["config"] == other


def test_without_overwrite_everything_stays(folder):
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


def test_any_name_can_be_listed(folder):
    skipped = [('say "cheese".png', 'it is "no" image'), ("line\nbreak.png", "broken"), ("back\\slash.png", "broken")]
    folder.open("config: {}", skipped, False)
    assert list(csv.reader(folder.skipped.open(encoding="utf-8", newline=""))) == [["image", "reason"], *map(list, skipped)]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_list_of_skipped_images_is_of_this_run(overwrite, folder):
    """Mended images are not listed for ever."""
    folder.open("config: {}", [("a.png", "broken")], False)
    folder.open("config: {}", [], overwrite)
    assert not folder.skipped.exists()


# Written


class Saves(pl.Callback):
    """A checkpoint after each step, and what was in the folder then."""

    def __init__(self, folder: CheckpointFolder) -> None:
        self.folder, self.there = folder, []

    def on_validation_end(self, trainer, pl_module) -> None:
        self.folder.save(trainer)
        self.there.append([step for step, _ in self.folder.all()])


def run(folder: CheckpointFolder, steps: int, resume: Path | None = None) -> Saves:
    saves = Saves(folder)
    fit(training_of(tiny_prior(), steps), Batches(batches(4)), [saves], validate_every=1, resume=resume)
    return saves


@pytest.mark.parametrize("keep", [1, 2, 10])
def test_only_the_newest_stay(keep, tmp_path):
    folder = CheckpointFolder(tmp_path, keep)
    assert run(folder, 4).there == [list(range(step, max(step - keep, 0), -1)) for step in range(1, 5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-0000000{step}.ckpt" for step in range(max(5 - keep, 1), 5)]
    assert all(read_whole(path)["global_step"] == step for step, path in folder.all())


def test_a_failed_write_leaves_the_earlier_ones(tmp_path, monkeypatch):
    break_writing(monkeypatch, "step-00000003.ckpt")
    with pytest.raises((OSError, RuntimeError)):
        run(CheckpointFolder(tmp_path, 2), 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001.ckpt", "step-00000002.ckpt"]
    assert all(read_whole(path) is not None for path in tmp_path.iterdir())


@pytest.mark.parametrize("before", [False, True], ids=["new", "over an old one"])
@pytest.mark.parametrize("how", ["write", "rename"])
def test_a_checkpoint_is_whole_or_not_there(how, before, tmp_path, monkeypatch):
    path = tmp_path / "deep" / "step-1.ckpt"
    if before:
        write(path, 1)
    break_writing(monkeypatch, path.name, how)
    with pytest.raises((OSError, RuntimeError)):
        write(path, 2)
    assert list(path.parent.iterdir()) == [path] * before
    assert not before or is_step(read_whole(path), 1)
    monkeypatch.undo()
    write(path, 2)
    assert is_step(read_whole(path), 2) and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("room", [0, 50, 300, 3000, 6000])
def test_a_full_disk_is_an_os_error_with_what_to_do(room, tmp_path, monkeypatch):
    break_writing(monkeypatch, "step-1.ckpt", room=room)
    with pytest.raises(OSError, match=r"cannot write .*step-1\.ckpt: .*make room or set another output_dir"):
        write(tmp_path / "step-1.ckpt", 1)


@pytest.mark.parametrize("keep", [1, 2])
def test_damaged_newer_ones_do_not_cost_the_good_ones_their_place(keep, tmp_path):
    """Two damaged ones are newest; the run goes on from the one before them and saves a step they are ahead of."""
    folder = CheckpointFolder(tmp_path, keep)
    run(CheckpointFolder(tmp_path, 3), 1)
    for step in (8, 9):
        folder.path(step).write_bytes(b"")
    run(folder, 2, folder.path(1))
    assert next(step for step, path in folder.all() if read_whole(path) is not None) == 2


# Gone on from


class Steps(pl.Callback):
    """The weights after each step, by its number."""

    def __init__(self) -> None:
        self.after: dict[int, torch.Tensor] = {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.after[trainer.global_step] = weights(pl_module)


def go(root: Path, steps: int, validate_every: int = 1000, every: int = 1000, keep: int = 2) -> tuple[Steps, torch.Tensor]:
    """What train.py's callbacks make of `steps` steps, from the newest checkpoint on: each step's weights, and the average."""
    folder, watch, record = CheckpointFolder(root, keep), Watch(), Steps()
    saving = Checkpoints(folder, watch, every, validate_every, steps, None)
    data = Batches(batches(steps))
    module = training_of(tiny_prior({"dropout": 0.1}), steps)
    newest = folder.all()[0][1] if folder.all() else None
    fit(module, data, [watch, record, average(0.5), saving], validate_every, resume=newest)
    assert folder.all()[0][0] == steps
    return record, weights(module)


@pytest.fixture(scope="module")
def five(tmp_path_factory) -> tuple[Steps, torch.Tensor]:
    return go(tmp_path_factory.mktemp("five"), 5)


@pytest.mark.slow
@pytest.mark.parametrize("validate_every", [1, 2, 3, 1000])
@pytest.mark.parametrize("first", [1, 2, 3])
def test_a_finished_run_made_longer_is_the_longer_run(first, validate_every, five, tmp_path):
    """Bit for bit, wherever validation fell: on the last step of the first run, or not."""
    go(tmp_path, first, validate_every)
    record, average = go(tmp_path, 5, validate_every)
    assert list(record.after) == list(range(first + 1, 6))
    assert all(torch.equal(after, five[0].after[step]) for step, after in record.after.items())
    assert torch.equal(average, five[1])


@pytest.mark.slow
@pytest.mark.parametrize(("every", "validate_every", "left"), [(2, 1000, 2), (2, 1000, 4), (3, 2, 3), (3, 2, 4), (1, 3, 3)])
def test_an_interrupted_run_gone_on_with_is_the_uninterrupted_one(every, validate_every, left, five, tmp_path):
    """From a checkpoint made between validations, or after one; those made later are lost."""
    folder = CheckpointFolder(tmp_path, 10)
    go(tmp_path, 5, validate_every, every, keep=10)
    for step, path in folder.all():
        if step > left:
            path.unlink()
    assert folder.all()[0][0] == left
    record, average = go(tmp_path, 5, validate_every, every)
    assert list(record.after) == list(range(left + 1, 6))
    assert all(torch.equal(after, five[0].after[step]) for step, after in record.after.items())
    assert torch.equal(average, five[1])


# metrics.csv


class Rows(pl.Callback):
    """The loss of each turn, the rate of each step, and the file as it stands when training begins."""

    def __init__(self, path: Path) -> None:
        self.path, self.losses, self.rates, self.begun = path, [], {}, None

    def on_train_start(self, trainer, pl_module) -> None:
        self.begun = self.path.read_text()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.rates[trainer.global_step + 1] = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.losses.append(outputs["loss"].item())


class Notes(pl.Callback):
    """A validated figure, its step, to the journal."""

    def __init__(self, journal: TrainingLog) -> None:
        self.journal = journal

    def on_validation_epoch_end(self, trainer, pl_module) -> None:
        self.journal.write(trainer, {"figure": trainer.global_step / 8})


def logged(path: Path, steps: int = 8, keep=(), resume=None, names=("figure",), every: int = 2, accumulate: int = 1) -> Rows:
    journal, rows = TrainingLog(path, list(names), steps, batch_size=2, every=every), Rows(path)
    data = Batches(batches(8 * accumulate, size=2 // accumulate))
    fit(training_of(tiny_prior(), steps), data, [journal, rows, Notes(journal), *keep], 3, accumulate=accumulate, resume=resume)
    return rows


def table(path: Path) -> list[dict[str, str]]:
    """The rows, without the one column that is a time."""
    return [{key: value for key, value in row.items() if key != "images_per_second"} for row in csv.DictReader(path.open())]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_row_is_the_mean_since_the_row_before(accumulate, tmp_path):
    """A step's loss is that of its whole batch, in however many turns; its rate the one it was made with."""
    path = tmp_path / "metrics.csv"
    rows = logged(path, every=3, accumulate=accumulate)
    written = table(path)
    assert path.read_text().startswith("step,images,loss,lr,images_per_second,figure\n")
    assert [(row["step"], row["images"], row["figure"]) for row in written] == [
        *(("3", "6", ""), ("3", "", "0.375"), ("6", "12", ""), ("6", "", "0.75")),
        ("8", "16", ""),
    ]
    losses = [sum(rows.losses[i : i + accumulate]) for i in range(0, len(rows.losses), accumulate)]  # Lightning's are divided by the turns
    for row, span in zip([row for row in written if row["loss"]], (slice(0, 3), slice(3, 6), slice(6, 8)), strict=True):
        assert float(row["loss"]) == pytest.approx(sum(losses[span]) / len(losses[span]), rel=1e-5)
        assert float(row["lr"]) == rows.rates[int(row["step"])]


def test_rows_after_the_resumed_step_are_written_again_and_the_header_once(tmp_path):
    path, checkpoint = tmp_path / "metrics.csv", tmp_path / "three.ckpt"
    logged(path, keep=[Keep(checkpoint, 3)])
    whole = table(path)
    text = path.read_text()
    assert [row["step"] for row in whole] == ["2", "3", "4", "6", "6", "8"]
    with path.open("a") as stream:
        stream.write("9,18,1.0")  # a row cut off

    rows = logged(path, resume=checkpoint)
    assert rows.begun == "".join(text.splitlines(keepends=True)[:3])
    assert table(path) == whole
    assert path.read_text().count("step,") == 1


def test_figures_asked_for_later_get_a_column(tmp_path):
    """What `validation` may change while a run is under way."""
    path, checkpoint = tmp_path / "metrics.csv", tmp_path / "three.ckpt"
    logged(path, keep=[Keep(checkpoint, 3)])
    logged(path, resume=checkpoint, names=("other", "figure"))
    rows = table(path)
    assert path.read_text().splitlines()[0] == "step,images,loss,lr,images_per_second,other,figure"
    assert [(row["step"], row["figure"]) for row in rows if row["figure"]] == [("3", "0.375"), ("6", "0.75")]
    assert all(row["other"] == "" for row in rows) and None not in rows[0]


def test_a_run_begun_anew_begins_a_file_anew(tmp_path):
    path = tmp_path / "metrics.csv"
    logged(path, steps=4)
    first = table(path)
    logged(path, steps=4)
    assert table(path) == first
