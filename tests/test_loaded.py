"""The jobs of a sweep in one process share their prior, and only where it is the same."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf
from tiny_evaluation import assert_same, draw_images, evaluate

from diffusion_priors.conf import PROJECT
from diffusion_priors.conf.loaded import LastPrior
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.folder import from_folder

WEIGHTS = PROJECT / "diffusion" / "weights" / "faces64"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(WEIGHTS, tmp_path / "prior"))


def job(folder: Path, **changes: object) -> DictConfig:
    whole = {"prior": {"path": str(folder), "clip": True}, "tile": {}, "trainer": {"channels_last": True}, "seed": 0}
    return OmegaConf.create(whole | changes)


class Loader:
    """Counts how often weights are read, and asked for what they hold."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls = folder, 0
        self.last = LastPrior()

    def __call__(self, config: DictConfig) -> Prior:
        return self.last(config, self._load)

    def _load(self) -> Prior:
        self.calls += 1
        return from_folder(str(self.folder))


def test_a_job_takes_the_prior_of_the_last_one_where_nothing_about_it_differs(folder):
    loader = Loader(folder)
    first = loader(job(folder))
    network, calls = first.network, []
    network.register_forward_hook(lambda *_: calls.append(1))
    assert (first.probe(), first.fingerprint()) == (from_folder(str(WEIGHTS)).probe(), from_folder(str(WEIGHTS)).fingerprint())
    again = loader(job(folder, seed=1))
    assert again is first and loader.calls == 1
    assert again.probe() == first.probe() and len(calls) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"prior": {"path": "elsewhere", "clip": True}},
        {"prior": {"path": "elsewhere", "clip": False}},
        {"tile": {"image_size": [96, 96]}},
        {"trainer": {"channels_last": False}},
    ],
)
def test_a_job_with_another_prior_loads_it(folder, changes):
    """Memory layout and compilation stay with a network, so that a job with another trainer has one of its own."""
    loader = Loader(folder)
    first = loader(job(folder))
    assert loader(job(folder, **changes)) is not first
    assert loader(job(folder)) is not first and loader.calls == 3


def test_weights_that_have_changed_are_read_again(folder):
    """At the same path, of the same size."""
    loader = Loader(folder)
    first = loader(job(folder))
    weights = folder / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 0x11
    weights.write_bytes(content)
    os.utime(weights, ns=(1, 1))
    second = loader(job(folder))
    assert second is not first and second.fingerprint() != first.fingerprint()


@pytest.mark.script
def test_the_jobs_of_a_sweep_have_the_results_of_runs_alone(tmp_path):
    """The last one takes the prior of the first."""
    draw_images(tmp_path / "images", 3)
    line = ["data.root=images", "batch_size=2"]
    evaluate(tmp_path, "-m", *line, "solver=dps,ddrm", "seed=0,1", "output_dir=sweep")
    (job,) = (path.parent for path in (tmp_path / "sweep").glob("*/config.yaml") if {"solver=ddrm", "seed=1"} <= overrides(path))
    evaluate(tmp_path, *line, "solver=ddrm", "seed=1", "output_dir=alone")
    assert_same(job, tmp_path / "alone")


def overrides(config: Path) -> set[str]:
    return {*yaml.safe_load(config.read_text())["overrides"]}
