"""Pages that several tests read: each is written once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import Browser
from written_run import HOSTILE, WrittenRun, save

from diffusion_priors.evaluation.reporting.run_page import write_report


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="session")
def usual(tmp_path_factory) -> Path:
    """Twelve images with three samples each, one of which failed."""
    run = WrittenRun(tmp_path_factory.mktemp("usual"), [f"face-{i}" for i in range(12)], samples=3)
    run.fail("face-4", 1, "ValueError: x0 holds NaN at step 17\n  of <b>250</b>")
    return write_report(run.write())


@pytest.fixture(scope="session")
def hostile(tmp_path_factory) -> Path:
    """Markup in every text that a user can write: names, an error, the configuration, the title."""
    run = WrittenRun(tmp_path_factory.mktemp("hostile"), HOSTILE, samples=2)
    run.fail(HOSTILE[1], 0, "</pre><script>alert(4)</script><img src=x onerror=alert(5)>")
    return write_report(run.write(title="<script>alert(6)</script> & more"))


@pytest.fixture(scope="session")
def colours(tmp_path_factory) -> Path:
    """Two images whose measurement is red, restoration green and truth blue."""
    run = WrittenRun(tmp_path_factory.mktemp("colours"), ["first", "second"], size=32)
    for name, colour in (("measurement", (255, 0, 0)), ("restoration-0", (0, 255, 0)), ("truth", (0, 0, 255))):
        for folder in (run.root / "images").iterdir():
            save(folder / f"{name}.png", np.full((32, 32, 3), colour, dtype=np.float64))
    return write_report(run.write())


@pytest.fixture(scope="session")
def no_truth(tmp_path_factory) -> Path:
    return write_report(WrittenRun(tmp_path_factory.mktemp("no_truth"), ["a", "b"], truth=False).write())


@pytest.fixture(scope="session")
def unconditional(tmp_path_factory) -> Path:
    run = WrittenRun(tmp_path_factory.mktemp("unconditional"), ["prior"], samples=12, truth=False, measured=False)
    return write_report(run.write())
