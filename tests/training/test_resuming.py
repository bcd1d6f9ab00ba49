"""Resumed runs equal uninterrupted ones: checkpoints that Lightning writes, steps, averages, and the rows of metrics.csv."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch
from lazy import Lazy
from misfortune import break_writing
from tiny_prior import tiny_prior, weights

if TYPE_CHECKING:
    from diffusion_priors.training.checkpoints import CheckpointFolder
    from diffusion_priors.training.journal import TrainingLog

tiny = Lazy("tiny_training")
record = Lazy("training_callbacks")
callbacks = Lazy("diffusion_priors.training.callbacks")
checkpoints = Lazy("diffusion_priors.training.checkpoints")
journal = Lazy("diffusion_priors.training.journal")

pytestmark = pytest.mark.slow


# Checkpoints as they are saved


def train_saving_each_step(folder: CheckpointFolder, steps: int, resume: Path | None = None) -> list[list[int]]:
    """Train and save after each step; → the steps of the checkpoints in the folder after each of them."""
    saving = record.SaveEachStep(folder)
    module = tiny.training_of(tiny_prior(), steps)
    tiny.fit(module, tiny.Batches(tiny.batches(4)), [saving], validate_every=1, resume=resume)
    return saving.held


@pytest.mark.parametrize("keep", [1, 2, 10])
def test_only_the_newest_checkpoints_are_kept(keep, tmp_path):
    folder = checkpoints.CheckpointFolder(tmp_path, keep)
    assert train_saving_each_step(folder, 4) == [list(range(step, max(step - keep, 0), -1)) for step in range(1, 5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-0000000{step}.ckpt" for step in range(max(5 - keep, 1), 5)]
    assert all(checkpoints.read_whole(path)["global_step"] == step for step, path in folder.all())


def test_a_failed_write_keeps_the_earlier_checkpoints(tmp_path, monkeypatch):
    break_writing(monkeypatch, "step-00000003.ckpt")
    with pytest.raises((OSError, RuntimeError)):
        train_saving_each_step(checkpoints.CheckpointFolder(tmp_path, 2), 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001.ckpt", "step-00000002.ckpt"]
    assert all(checkpoints.read_whole(path) is not None for path in tmp_path.iterdir())


@pytest.mark.parametrize("keep", [1, 2])
def test_damaged_newer_checkpoints_do_not_displace_intact_ones(keep, tmp_path):
    """The two newest checkpoints are damaged. The run resumes from the one before them and saves a step before theirs."""
    folder = checkpoints.CheckpointFolder(tmp_path, keep)
    train_saving_each_step(checkpoints.CheckpointFolder(tmp_path, 3), 1)
    for step in (8, 9):
        folder.path(step).write_bytes(b"")
    train_saving_each_step(folder, 2, folder.path(1))
    assert next(step for step, path in folder.all() if checkpoints.read_whole(path) is not None) == 2


# Runs that resume


Trained = tuple[dict[int, torch.Tensor], torch.Tensor]
"""The weights after each step, and the average at the end."""


def train(root: Path, steps: int, validate_every: int = 1000, every: int = 1000, keep: int = 2) -> Trained:
    """Train to `steps` steps with the callbacks of train.py, from the newest checkpoint in `root` if there is one."""
    folder, watch, steps_taken = checkpoints.CheckpointFolder(root, keep), callbacks.Watch(), record.WeightsByStep()
    saving = callbacks.Checkpoints(folder, watch, every, validate_every, steps, None)
    module = tiny.training_of(tiny_prior({"dropout": 0.1}), steps)
    newest = folder.all()[0][1] if folder.all() else None
    data = tiny.Batches(tiny.batches(steps))
    tiny.fit(module, data, [watch, steps_taken, callbacks.average(0.5), saving], validate_every, resume=newest)
    assert folder.all()[0][0] == steps
    return steps_taken.after, weights(module)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Trained:
    """Five steps without interruption."""
    return train(tmp_path_factory.mktemp("five"), 5)


@pytest.fixture(scope="module")
def saved_often(tmp_path_factory):
    """The folder of five steps with all its checkpoints, trained once for each (every, validate_every)."""
    roots: dict[tuple[int, int], Path] = {}

    def folder(every: int, validate_every: int) -> Path:
        if (every, validate_every) not in roots:
            root = roots[every, validate_every] = tmp_path_factory.mktemp("often")
            train(root, 5, validate_every, every, keep=10)
        return roots[every, validate_every]

    return folder


def assert_continues(trained: Trained, first: int, uninterrupted: Trained) -> None:
    """`trained` are steps first + 1 … 5, equal to the uninterrupted ones bit for bit."""
    after, average = trained
    assert list(after) == list(range(first + 1, 6))
    assert all(torch.equal(found, uninterrupted[0][step]) for step, found in after.items())
    assert torch.equal(average, uninterrupted[1])


@pytest.mark.parametrize("validate_every", [1, 2, 3, 1000])
@pytest.mark.parametrize("first", [1, 2, 3])
def test_a_finished_run_can_be_extended(first, validate_every, uninterrupted, tmp_path):
    """Whether or not the last step of the first run is one of those that are validated anyway."""
    train(tmp_path, first, validate_every)
    assert_continues(train(tmp_path, 5, validate_every), first, uninterrupted)


@pytest.mark.parametrize(("every", "validate_every", "last"), [(2, 1000, 2), (2, 1000, 4), (3, 2, 3), (3, 2, 4), (1, 3, 3)])
def test_an_interrupted_run_resumes_where_it_was(every, validate_every, last, saved_often, uninterrupted, tmp_path):
    """From the checkpoint of step `last`, saved between validations or after one. The later ones are lost."""
    folder = checkpoints.CheckpointFolder(tmp_path / "run", 10)
    shutil.copytree(saved_often(every, validate_every), folder.root)
    for step, path in folder.all():
        if step > last:
            path.unlink()
    assert folder.all()[0][0] == last
    assert_continues(train(folder.root, 5, validate_every, every), last, uninterrupted)


# metrics.csv


def log(path: Path, steps: int = 8, keep=(), resume=None, names=("value",), every: int = 2, accumulate: int = 1):
    """Train with a journal at `path`, validating every three steps; → what the run recorded."""
    written = journal.TrainingLog(path, list(names), steps, batch_size=2, every=every)
    rows = record.RecordRows(path)
    data = tiny.Batches(tiny.batches(8 * accumulate, size=2 // accumulate))
    observers = [written, rows, record.WriteValue(written), *keep]
    tiny.fit(tiny.training_of(tiny_prior(), steps), data, observers, 3, accumulate=accumulate, resume=resume)
    return rows


def table(path: Path) -> list[dict[str, str]]:
    """The rows without images_per_second, which depends on time."""
    return [{key: value for key, value in row.items() if key != "images_per_second"} for row in csv.DictReader(path.open())]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_row_holds_the_mean_loss_since_the_previous_row(accumulate, tmp_path):
    """The loss of a step is that of its whole batch, whatever the number of micro-batches. Its rate is the one it used."""
    path = tmp_path / "metrics.csv"
    rows = log(path, every=3, accumulate=accumulate)
    written = table(path)
    assert path.read_text().startswith("step,images,loss,lr,images_per_second,value\n")
    assert [(row["step"], row["images"], row["value"]) for row in written] == [
        *(("3", "6", ""), ("3", "", "0.375"), ("6", "12", ""), ("6", "", "0.75")),
        ("8", "16", ""),
    ]
    # Lightning divides the loss of a micro-batch by their number
    losses = [sum(rows.losses[i : i + accumulate]) for i in range(0, len(rows.losses), accumulate)]
    for row, span in zip([row for row in written if row["loss"]], (slice(0, 3), slice(3, 6), slice(6, 8)), strict=True):
        assert float(row["loss"]) == pytest.approx(sum(losses[span]) / len(losses[span]), rel=1e-5)
        assert float(row["lr"]) == rows.rates[int(row["step"])]


def test_a_resumed_run_rewrites_the_later_rows_and_keeps_one_header(tmp_path):
    path, checkpoint = tmp_path / "metrics.csv", tmp_path / "three.ckpt"
    log(path, keep=[tiny.Keep(checkpoint, 3)])
    whole = table(path)
    text = path.read_text()
    assert [row["step"] for row in whole] == ["2", "3", "4", "6", "6", "8"]
    with path.open("a") as stream:
        stream.write("9,18,1.0")  # an incomplete row

    rows = log(path, resume=checkpoint)
    assert rows.at_start == "".join(text.splitlines(keepends=True)[:3])
    assert table(path) == whole
    assert path.read_text().count("step,") == 1


def test_a_resumed_run_may_add_a_column(tmp_path):
    """`validation` may change when a run is resumed."""
    path, checkpoint = tmp_path / "metrics.csv", tmp_path / "three.ckpt"
    log(path, keep=[tiny.Keep(checkpoint, 3)])
    log(path, resume=checkpoint, names=("other", "value"))
    rows = table(path)
    assert path.read_text().splitlines()[0] == "step,images,loss,lr,images_per_second,other,value"
    assert [(row["step"], row["value"]) for row in rows if row["value"]] == [("3", "0.375"), ("6", "0.75")]
    assert all(row["other"] == "" for row in rows) and None not in rows[0]


@pytest.mark.parametrize(("rank", "world", "expected"), [(0, 2, 1.0), (1, 2, 3.0), (0, 1, 2.0)])
def test_each_process_resumes_with_its_own_loss(rank, world, expected, tmp_path):
    """A checkpoint holds the loss of both processes since the latest row; one process alone takes their mean."""

    def started(rank: int, world: int, state: dict | None = None) -> TrainingLog:
        log = journal.TrainingLog(tmp_path / "metrics.csv", [], steps=8, batch_size=2)
        if state is not None:
            log.load_state_dict(state)
        strategy = SimpleNamespace(all_gather=lambda _: torch.tensor([1.0, 3.0]))
        trainer = SimpleNamespace(strategy=strategy, global_rank=rank, world_size=world, global_step=3, is_global_zero=rank == 0)
        log.on_train_start(trainer, SimpleNamespace(device="cpu"))
        return log

    first = started(0, 2)
    first.total = torch.tensor(1.0)
    assert started(rank, world, first.state_dict()).total.item() == expected


def test_a_restarted_run_restarts_the_file(tmp_path):
    path = tmp_path / "metrics.csv"
    log(path, steps=4)
    first = table(path)
    log(path, steps=4)
    assert table(path) == first
