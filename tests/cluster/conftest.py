"""A cluster, what to run on it, and the results of a run without interruption."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from evaluations import draw_images, finish, launch
from slurm import Cluster, lacking


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A SLURM of this test process: several may run at the same time."""
    why = lacking()
    if why is not None:
        pytest.skip(why)
    cluster = Cluster().start()
    yield cluster
    cluster.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw_images(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep of the documentation in one process, without a cluster: a folder with one folder per job."""
    folder = tmp_path_factory.mktemp("reference")
    draw_images(folder)
    finish(launch("python evaluate.py -m data.root=FOLDER solver=dps,sdedit output_dir=sweep", folder))
    return folder / "sweep"
