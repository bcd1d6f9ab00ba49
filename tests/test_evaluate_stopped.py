"""Evaluations that are killed or stopped, and resumed: the results equal those of a run without interruption."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forks import Run
from tiny_evaluation import TINY, assert_same, assert_whole, evaluate, ranks, the_line, undisturbed

from diffusion_priors.runs.layout import RunLayout
from diffusion_priors.runs.reading.records import read_lines

pytestmark = pytest.mark.script

IMAGES, SAMPLES = 10, 2
REST = ["+prior.network.rest=0.005"]
LINE = [*REST, "data.root=images", f"num_samples={SAMPLES}", "batch_size=3"]
WHOLE = IMAGES * SAMPLES


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return undisturbed(tmp_path_factory.mktemp("whole"), IMAGES, *LINE)


def on_record(run: Path) -> int:
    """The number of complete lines in the records of all processes."""
    return sum(path.read_bytes().count(b"\n") for path in run.glob("records*.jsonl"))


def moments(run: Path, generator: random.Random) -> list[Callable[[], bool]]:
    """The conditions to wait for before each kill: at the beginning, in the middle, at the end."""
    ahead = sorted(generator.sample(range(1, WHOLE), 3))
    return [
        lambda: True,
        (run / "config.yaml").exists,
        *(lambda count=count: on_record(run) >= count for count in ahead),
        lambda: on_record(run) >= WHOLE,
        (run / "posterior.jsonl").exists,
        (run / "figure.png").exists,
    ]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_run_killed_at_random_moments_has_the_results_of_an_undisturbed_one(whole, seed):
    """kill -9 at a random time after each of these moments in turn; every run resumes the last one."""
    generator, run = random.Random(seed), whole / f"killed-{seed}"
    kills = 0
    for moment in moments(run, generator):
        one = Run(whole, *TINY, *LINE, f"output_dir={run.name}")
        one.wait_until(moment)
        time.sleep(generator.uniform(0.0, 0.03))
        before = on_record(run)
        kills += one.kill() == -signal.SIGKILL
        assert on_record(run) >= before
    assert kills >= 6
    evaluate(whole, *LINE, f"output_dir={run.name}")
    assert_same(run, whole / "run")


CODES = {signal.SIGTERM: 143, signal.SIGUSR1: 138, signal.SIGINT: 130}


@pytest.mark.parametrize("number", CODES)
def test_a_stopped_run_keeps_finished_restorations_and_says_so(whole, number):
    run = whole / number.name
    one = Run(whole, *TINY, *LINE, f"output_dir={run.name}")
    assert one.wait_until(lambda: on_record(run) >= 4)
    one.send(number)
    done = one.wait()
    assert done.returncode == CODES[number], done.stderr
    assert the_line(done) == f"error: stopped by {number.name}; finished restorations are on record, and the same command resumes the run"
    kept = assert_whole(run)
    assert 4 <= kept < WHOLE and not (run / "summary.json").exists()
    assert f"{kept} of {WHOLE} restorations are on record; resuming" in evaluate(whole, *LINE, f"output_dir={run.name}").stdout
    assert_same(run, whole / "run")


def test_two_processes_killed_twice_are_resumed_by_one(whole):
    """Each process writes its own file, and no item is computed twice; the next run reads all files."""
    run = whole / "shared"
    for count in (4, 12):
        group = ranks(whole, 2, *LINE, f"output_dir={run.name}")
        assert group[0].wait_until(lambda count=count: on_record(run) >= count and len(RunLayout(run).all_records()) == 2)
        for one in group:  # both before either is waited for: the second would end by itself
            one.send(signal.SIGKILL)
        assert {one.kill() for one in group} == {-signal.SIGKILL}
        kept = [(record["id"], record["sample"]) for path in RunLayout(run).all_records() for record in read_lines(path)]
        assert len(RunLayout(run).all_records()) == 2 and len({*kept}) == len(kept) >= count
    assert "restorations are on record; resuming" in evaluate(whole, *LINE, f"output_dir={run.name}").stdout
    assert_same(run, whole / "run")
