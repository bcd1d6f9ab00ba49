"""Evaluations shared by processes have the results of a single process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from forks import ROOT, Run
from tiny_evaluation import TINY, assert_same, evaluate, ranks, undisturbed

pytestmark = pytest.mark.script

IMAGES = 5
LINE = ["data.root=images", "num_samples=2", "batch_size=3"]
SHARED = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return undisturbed(tmp_path_factory.mktemp("whole"), IMAGES, *LINE)


@pytest.mark.slow
def test_two_processes_started_by_lightning_have_the_results_of_one(whole):
    done = evaluate(whole, *LINE, *SHARED, "output_dir=ddp")
    assert done.stdout.count("posterior mean") == 1
    assert_same(whole / "ddp", whole / "run")


@pytest.mark.slow
def test_two_processes_started_by_torchrun_have_the_results_of_one(whole):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(ROOT / "evaluate.py")]
    own = {"PYTHONPATH": str(ROOT / "tests" / "support"), "OMP_NUM_THREADS": "1"}
    line = [*command, *TINY, *LINE, *SHARED, "output_dir=torchrun"]
    done = subprocess.run(line, cwd=whole, env=os.environ | own, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("posterior mean") == 1
    assert_same(whole / "torchrun", whole / "run")


def test_more_processes_than_batches_have_the_results_of_one(whole):
    group = ranks(whole, 2, *LINE, "batch_size=16", "output_dir=more")
    done = [one.wait() for one in group]
    assert [one.returncode for one in done] == [0, 0], "\n".join(one.stderr for one in done)
    assert [bool(one.stdout) for one in done] == [True, False]
    evaluate(whole, *LINE, "batch_size=16", "output_dir=one")
    assert_same(whole / "more", whole / "one")


def test_processes_that_are_stopped_together_end_together(whole):
    """torchrun and SLURM signal all of them."""
    group = ranks(whole, 2, *LINE, "+prior.network.rest=0.1", "output_dir=stopped")
    assert group[0].wait_until((whole / "stopped" / "records.jsonl").exists)
    for one in group:
        one.send(signal.SIGTERM)
    assert [one.wait(30.0).returncode for one in group] == [143, 143]
    assert not (whole / "stopped" / "summary.json").exists()


def test_a_job_of_a_sweep_is_not_shared_by_processes_that_would_run_the_sweep(whole):
    done = Run(whole, "-m", *TINY, *LINE, *SHARED, "seed=0,1", "output_dir=sweep").wait()
    assert done.returncode == 1 and "use one device a job, or a launcher" in done.stderr
    assert not list((whole / "sweep").glob("*/records*"))
