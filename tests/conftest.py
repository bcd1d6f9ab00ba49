"""Tests run next to each other, one thread each. A test that starts another process carries the marker `script` or `slow`."""

from __future__ import annotations

import gc
import multiprocessing.process
import os
import sys
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors gain nothing from more threads

EVENTS = {"subprocess.Popen", "os.fork", "os.posix_spawn"}
ALLOWED = {"git", "ldconfig"}
"""Programs of a few milliseconds; Python's ctypes starts the second when it looks for a library."""
started: list[str] = []
"""What was started since the last test ended, by the test itself or by a fixture of its module."""


def hear(event: str, args: tuple) -> None:
    """An audit hook of the interpreter (PEP 578)."""
    if event in EVENTS:
        program = str(args[0] if args else event)
        if os.path.basename(program) not in ALLOWED:
            started.append(program)


def start(process: multiprocessing.process.BaseProcess) -> None:
    """Processes of a fork server are started by the server, out of the audit hook's hearing."""
    started.append(type(process).__name__)
    start_process(process)


sys.addaudithook(hear)
start_process = multiprocessing.process.BaseProcess.start
multiprocessing.process.BaseProcess.start = start


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The pages come first: each takes minutes in one process, and at the end the other processes would have nothing to do."""
    items.sort(key=lambda item: item.path.name not in ("test_docs.py", "test_readme.py"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """A process without tests takes over a part of another's, so that all end together. --dist chooses another way."""
    if config.getvalue("dist") != "load":
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


def pytest_collection_finish() -> None:
    """What was collected lives until the end: garbage collection need not visit it again and again."""
    started.clear()
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def marked_as_what_it_starts(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests without a marker answer in about a minute, all of them together."""
    yield
    programs, marks = started[:], {mark.name for mark in request.node.iter_markers()}
    started.clear()
    if programs and not marks & {"script", "slow"}:
        pytest.fail(f"this test started {', '.join(programs)}: mark it with pytest.mark.script", pytrace=False)
