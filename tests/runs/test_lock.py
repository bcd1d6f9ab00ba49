"""One run at a time works in a folder, and the lock outlives no process."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from diffusion_priors.runs import lock
from diffusion_priors.runs.layout import LOCK
from diffusion_priors.runs.lock import locked

pytestmark = pytest.mark.script

SPAWN = multiprocessing.get_context("fork")
GROUP = {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.1)


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of `run` until it is killed, as rank 0 of the group of MASTER_PORT."""

    def start(**environment: str):
        process = SPAWN.Process(target=hold, args=(tmp_path / "run", environment))
        process.start()
        while not (tmp_path / "run" / "held").exists():
            time.sleep(0.01)
            assert process.is_alive()
        started.append(process)
        return process

    started: list = []
    yield start
    for process in started:
        process.kill()
        process.join()


def hold(root: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    with locked(root):
        (root / "held").touch()
        signal.pause()


def test_the_second_run_is_told_who_has_the_folder(tmp_path, holder):
    process = holder()
    with pytest.raises(ValueError, match=rf"run is in use by process {process.pid} on {socket.gethostname()} since 20.*output_dir"):
        locked(tmp_path / "run").__enter__()
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"held", LOCK}


def test_what_kill_9_leaves_locks_nothing(tmp_path, holder):
    process = holder()
    process.kill()
    process.join()
    assert (tmp_path / "run" / LOCK).exists()
    with locked(tmp_path / "run"):
        pass
    assert not (tmp_path / "run" / LOCK).exists()


def test_children_of_a_killed_run_do_not_keep_its_lock(tmp_path):
    """Processes that read images ahead outlive a killed parent for seconds."""

    def work():
        with locked(tmp_path / "run"):
            child = os.fork()
            (tmp_path / "run" / str(child or "child")).touch()
            signal.pause()

    process = SPAWN.Process(target=work)
    process.start()
    while len(found := list((tmp_path / "run").glob("[0-9]*"))) < 1 or not (tmp_path / "run" / "child").exists():
        time.sleep(0.01)
    process.kill()
    process.join()
    try:
        with locked(tmp_path / "run"):
            pass
    finally:
        os.kill(int(found[0].name), signal.SIGKILL)


def test_the_processes_of_one_run_share_the_lock_of_the_first(tmp_path, holder, monkeypatch):
    holder(**GROUP)
    for name, value in GROUP.items():
        monkeypatch.setenv(name, value)
    with locked(tmp_path / "run", first=False):
        pass
    with pytest.raises(ValueError, match="in use"):
        locked(tmp_path / "run").__enter__()
    monkeypatch.setenv("MASTER_PORT", "29501")
    with pytest.raises(ValueError, match="in use"):
        locked(tmp_path / "run", first=False).__enter__()


def test_a_child_of_the_first_process_shares_its_lock(tmp_path):
    def work():
        with locked(tmp_path / "run", first=False):
            pass

    with locked(tmp_path / "run"):
        process = SPAWN.Process(target=work)
        process.start()
        process.join()
    assert process.exitcode == 0


def test_a_process_that_is_earlier_than_the_first_does_not_keep_it_out(tmp_path, monkeypatch):
    with locked(tmp_path / "run", first=False), locked(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK).exists()


def test_the_other_processes_leave_nothing_of_their_own(tmp_path):
    with locked(tmp_path / "run", first=False):
        assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).write_text("of a process that was killed")
    with locked(tmp_path / "run", first=False):
        assert not (tmp_path / "run" / LOCK).exists()


@pytest.mark.parametrize("root", ["run", "a/b/run", "here/run"])
def test_nothing_is_left_of_a_run_that_is_refused(tmp_path, root):
    (tmp_path / "here").mkdir()
    with pytest.raises(ValueError, match="refused"), locked(tmp_path / root):
        raise ValueError("refused")
    assert list(tmp_path.rglob("*")) == [tmp_path / "here"]


def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / ("x" * 300), tmp_path / "a\0b"):
        with pytest.raises(OSError, match="set output_dir to a folder that can be written"):
            locked(root).__enter__()
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_and_used(tmp_path, monkeypatch, capsys, number):
    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "run"):
        assert "no locks" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["", "x", "[]", '{"pid": "\\u001b[2J", "host": [1]}', "[" * 4000])
def test_whatever_stands_in_the_file_it_is_named_in_one_printable_line(tmp_path, holder, content):
    holder()
    (tmp_path / "run" / LOCK).write_text(content)
    with pytest.raises(ValueError, match="is in use by") as refused:
        locked(tmp_path / "run").__enter__()
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, False), ({"LOCAL_RANK": "0"}, False), ({"LOCAL_RANK": "1"}, True), (GROUP | {"LOCAL_RANK": "1"}, False)],
)
def test_a_process_knows_whether_the_first_one_started_it(monkeypatch, environment, expected):
    """Lightning's children need not check again what their parent has checked; those of torchrun start with it."""
    for name in ("LOCAL_RANK", "SLURM_JOB_ID", *GROUP):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert lock.started_by_first() is expected
