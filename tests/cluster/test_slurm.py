"""Every command of docs/cluster.md that needs SLURM, on a real SLURM."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from evaluations import IMAGES, ROOT, adapted, assert_same_sweep, blocks, documented, finish, launch, of, recorded, results, wait_for
from slurm import Cluster

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def launchers() -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")


def logs(folder: Path, cluster: Cluster) -> str:
    """The output of the jobs and of the daemons."""
    files = [*folder.glob("*.out"), *folder.glob(".submitit/*/*.out"), *folder.glob(".submitit/*/*.err")]
    return "\n".join([*(f"--- {path.name}\n{path.read_text()}" for path in files), cluster.logs()])


def submit(line: str, folder: Path, cluster: Cluster) -> str:
    """→ the job's number."""
    return re.search(r"Submitted batch job (\d+)", finish(launch(line, folder, **cluster.environment)))[1]


def over(job: str, folder: Path, cluster: Cluster) -> str:
    """Wait for the end of a job; → its output."""
    wait_for(lambda: not cluster.jobs(f"--jobs={job}"), lambda: logs(folder, cluster))
    return (folder / f"slurm-{job}.out").read_text()


def test_sweeps_become_jobs_with_the_resources_they_ask_for(cluster, folder, reference):
    """Two sweeps at once, one of them with one GPU per job: the results of every job, and a leaderboard."""
    cpus = documented("sweep") + " output_dir=cpus"
    gpus = documented("sweep on GPUs") + " output_dir=gpus +hydra.launcher.additional_parameters.comment=mine"
    sweeps = [launch(line, folder, **cluster.environment) for line in (cpus, gpus)]
    for sweep in sweeps:
        printed = finish(sweep)
        assert "dps" in printed and "sdedit" in printed and "PSNR (dB) ↑" in printed, printed
    assert_same_sweep(folder / "cpus", reference)
    assert_same_sweep(folder / "gpus", reference)
    (plain,), (gpu,) = ([path.name for path in (folder / sweep / ".submitit").glob("*_0")] for sweep in ("cpus", "gpus"))
    assert "NumCPUs=4 " in cluster.describe(plain) and "TimeLimit=04:00:00" in cluster.describe(plain)
    assert "Partition=tests" in cluster.describe(plain) and "gres" not in cluster.describe(plain)
    assert "gres:gpu:1" in cluster.describe(gpu) and "Comment=mine" in cluster.describe(gpu) and "NumCPUs=8 " in cluster.describe(gpu)


def test_jobs_of_two_ranks_are_preempted_requeued_and_resumed(cluster, folder, reference):
    """submitit signals one, as when its time is nearly over; SLURM preempts and requeues the other. The results do not change."""
    swept = folder / "sweep"
    sweep = launch(documented("sweep of ranks") + " output_dir=sweep", folder, **cluster.environment)
    run = swept / of("dps", reference).name
    wait_for(lambda: len(recorded(run)) >= 2, lambda: logs(swept, cluster))
    before = recorded(run)
    job = min(cluster.jobs()).split("_")[0]
    cluster.ask("scancel", "--signal=USR2", f"{job}_0")
    cluster.ask("scontrol", "requeue", f"{job}_1")
    printed = finish(sweep)
    assert "PSNR (dB) ↑" in printed
    assert all("Restarts=1" in cluster.describe(f"{job}_{number}") for number in (0, 1)), logs(swept, cluster)
    assert f"Requeued job {job}_0" in logs(swept, cluster)
    assert "are on record; resuming" in logs(swept, cluster)
    assert_same_sweep(swept, reference)
    assert before <= recorded(run)
    assert not list(swept.glob("*/error.txt"))


def test_a_batch_script_is_cancelled_submitted_again_and_requeued_at_its_time_limit(cluster, folder, reference):
    """A cancelled job is not requeued and keeps its records; one whose time is over is requeued. The results do not change."""
    (folder / "evaluate.sh").write_text(adapted(documented("script")))
    run = folder / "run"

    first = submit(documented("submission"), folder, cluster)
    wait_for(lambda: len(recorded(run)) >= 2, lambda: logs(folder, cluster))
    cluster.ask("scancel", first)
    assert "stopped by SIGTERM" in over(first, folder, cluster)
    assert "JobState=CANCELLED" in cluster.describe(first)
    before = recorded(run)
    assert 2 <= len(before) < IMAGES and not (run / "summary.json").exists()

    second = submit(documented("submission"), folder, cluster)
    wait_for(lambda: len(recorded(run)) >= len(before) + 2, lambda: logs(folder, cluster))
    cluster.ask("scancel", "--signal=USR1", second)
    printed = over(second, folder, cluster)
    assert "stopped by SIGUSR1" in printed and printed.count("are on record; resuming") == 2
    assert "Restarts=1" in cluster.describe(second) and "JobState=COMPLETED" in cluster.describe(second)
    assert results(run) == results(of("dps", reference))
    assert before <= recorded(run)


def test_srun_and_torchrun_share_an_evaluation(cluster, folder, reference):
    """From a terminal, and by torchrun inside a job of one task."""
    script = "#!/bin/bash\n#SBATCH --job-name=evaluate --ntasks-per-node=1 --mem=4G\n"
    (folder / "ranks.sh").write_text(script + adapted(documented("torchrun")) + " output_dir=torchrun\n")
    job = submit("sbatch ranks.sh", folder, cluster)
    printed = finish(launch(documented("srun") + " output_dir=srun", folder, **cluster.environment))
    assert printed.count("PSNR (dB) ↑") == 1, printed
    over(job, folder, cluster)
    for run in ("srun", "torchrun"):
        assert results(folder / run) == results(of("dps", reference))


def test_training_as_a_batch_script_is_requeued_until_it_is_finished(cluster, folder):
    """The script of docs/training.md, on one node with two processes."""
    (script,) = (block for block in blocks("training.md") if block.startswith("#!/bin/bash"))
    network = ["num_channels=8", "channel_mult=[1,2]", "attention_resolutions=[]", "image_size=16", "num_head_channels=8"]
    quiet = ["validation.denoise=2", "validation.samples=0", "validation.restore=0", "validation.grid.steps=2", "validation.every=10000"]
    line = ["data.root=images", "data.cache=cache", "prior.size=[16,16]", "batch_size=4", "steps=300", "checkpoint_every=10", *quiet]
    names = {
        "data.root=FOLDER": " ".join([*line, *(f"network.{flag}" for flag in network)]),
        "--nodes=2 --ntasks-per-node=4 --gpus-per-node=4": "--nodes=1 --ntasks-per-node=2 --mem=4G --open-mode=append",
        "trainer.accelerator=gpu trainer.devices=4 trainer.num_nodes=2": "trainer.accelerator=cpu trainer.devices=2 trainer.num_nodes=1",
        "RUN": "run",
        " train.py": f" {ROOT}/train.py",
    }
    for name, value in names.items():
        assert name in script
        script = script.replace(name, value)
    (folder / "train.sh").write_text(script)
    job = submit("sbatch train.sh", folder, cluster)
    wait_for(lambda: list(folder.glob("run/checkpoints/*.ckpt")), lambda: logs(folder, cluster))
    cluster.ask("scancel", "--signal=USR1", job)
    printed = over(job, folder, cluster)
    assert "stopped by SIGUSR1" in printed and "resuming from" in printed
    assert "Restarts=1" in cluster.describe(job) and (folder / "run" / "prior" / "card.yaml").exists(), printed


def test_the_daemons_belong_to_the_tests(cluster):
    """A test process that is killed takes its cluster with it."""
    for daemon in cluster.daemons:
        assert f"PPid:\t{os.getpid()}\n" in Path(f"/proc/{daemon.pid}/status").read_text()
