"""train.py as a user runs it: in a process of its own, on images made here."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb_file
import yaml
from forks import ROOT, Run
from PIL import Image
from safetensors.torch import load_file

from diffusion_priors.diffusion.networks.unet import UNet

pytestmark = pytest.mark.script

NETWORK = ["num_channels=8", "channel_mult=[1,2]", "attention_resolutions=[]", "image_size=16", "num_head_channels=8"]
QUIET = ["validation.denoise=2", "validation.samples=0", "validation.restore=0", "validation.grid.steps=2"]
COMMON = ["data.root=images", "data.cache=cache", "output_dir=out", "batch_size=4", *QUIET]
FAST = ["optimiser.lr=3e-3", "lr_schedule.warmup=0", "ema=0.5"]
"""A step changes the weights much more than rounding does, so a wrong gradient shows in the loss of the next step."""

TINY = [*COMMON, "prior.size=[16,16]", *(f"network.{flag}" for flag in NETWORK)]


OWN = {"PYTHONPATH": str(ROOT / "tests" / "support"), "OMP_NUM_THREADS": "1", "WANDB_SILENT": "true"}


def environment(folder: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HYDRA", "WANDB"))}
    return kept | OWN | {"HOME": str(folder)}


@pytest.fixture
def folder(tmp_path):
    """A folder with twelve images, some of them in subfolders."""
    generator = np.random.default_rng(0)
    for i in range(12):
        place = tmp_path / "images" / ("deep/er" if i % 3 == 0 else ".")
        place.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(generator.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        small.resize((20, 20), Image.Resampling.BICUBIC).save(place / f"{i}.png")
    return tmp_path


@pytest.fixture
def train(folder):
    """Run train.py (or another script) with overrides, in the folder."""

    def run(*overrides: str, code: int = 0, script: str = "train.py", **extra: str) -> subprocess.CompletedProcess:
        if "trainer=ddp" in overrides:  # it starts the other process from its command line
            command = [sys.executable, str(ROOT / script), *overrides]
            done = subprocess.run(command, cwd=folder, env=environment(folder) | extra, capture_output=True, text=True, timeout=500)
        else:
            done = Run(folder, *overrides, script=script, environment=OWN | {"HOME": str(folder)} | extra).wait(500)
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        return done

    return run


def rows(folder: Path) -> list[dict[str, str]]:
    """metrics.csv without images_per_second, which depends on time."""
    with (folder / "metrics.csv").open() as stream:
        return [{key: value for key, value in row.items() if key != "images_per_second"} for row in csv.DictReader(stream)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "prior" / "weights.safetensors")


def assert_same_weights(a: Path, b: Path) -> None:
    left, right = weights(a), weights(b)
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


def test_a_folder_of_images_becomes_a_prior_that_sample_loads(train, folder):
    """The whole path: metrics, sheets, checkpoints, an exported prior, and images that sample.py draws from it."""
    shown = ["validation.samples=3", "validation.restore=1", "validation.every=4", "checkpoint_every=3", "log_every=2"]
    done = train(*TINY, *shown, "steps=6", "export.name=blobs", "export.half=true", "export.licence=CC0")
    out = folder / "out"
    assert "10 images, 2 held out · 6 steps of 4" in done.stdout
    assert {p.name for p in out.iterdir()} == {"config.yaml", "metrics.csv", "validation", "checkpoints", "prior"}
    assert [p.name for p in sorted((out / "checkpoints").iterdir())] == ["step-00000004.ckpt", "step-00000006.ckpt"]
    assert sorted(p.name for p in (out / "validation").iterdir()) == ["step-00000004", "step-00000006"]
    for sheet in ("samples.png", "restoration.png"):
        assert np.asarray(Image.open(out / "validation" / "step-00000006" / sheet).convert("L")).std() > 5
    table = rows(out)
    assert [(row["step"], bool(row["loss"]), bool(row["val_loss"])) for row in table] == [
        ("2", True, False),
        ("4", True, False),
        ("4", False, True),
        ("6", True, False),
        ("6", False, True),
    ]
    assert table[-1]["restoration_psnr"] and all(float(table[-1][f"denoising_psnr/t{t}"]) > 0 for t in (100, 300, 500, 700, 900))
    card = yaml.safe_load((out / "prior" / "card.yaml").read_text())
    assert card["name"] == "blobs" and card["licence"] == "CC0" and card["size"] == [16, 16] and card["network"]["num_channels"] == 8
    assert card["training"]["images_seen"] == 24 and card["training"]["images"] == 10
    assert card["validation"]["float32"]["t500"] == pytest.approx(float(table[-1]["denoising_psnr/t500"]), abs=1e-3)
    assert card["validation"]["half"].keys() == card["validation"]["float32"].keys()
    assert all(tensor.dtype == torch.float16 for tensor in weights(out).values())
    assert (out / "prior" / "samples.png").is_file()

    cheap = ["solver=unconditional", "grid.steps=2", "metrics.lpips=null"]
    train("prior=out/prior", *cheap, "output_dir=a", script="sample.py")
    train("prior=out/checkpoints/step-00000006.ckpt", *cheap, "output_dir=b", script="sample.py")
    a, b = (np.asarray(Image.open(folder / run / "images/unconditional/restoration-0.png"), dtype=float) for run in "ab")
    assert np.abs(a - b).max() <= 2  # half precision against float32


def test_a_zip_and_worker_processes_give_the_same_training(train, folder):
    """A run depends on the images and their names, not on the container or on the processes that prepare them."""
    line = [*TINY, "steps=3", "log_every=1"]
    train(*line, "output_dir=plain")
    shutil.make_archive(str(folder / "zipped"), "zip", folder / "images")
    train(*line, "data.root=zipped.zip", "data.workers=2")
    assert rows(folder / "out") == rows(folder / "plain")
    assert_same_weights(folder / "out", folder / "plain")


STOPS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGKILL]


@pytest.mark.slow
def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(train, folder):
    """Stopped four times, with dropout, micro-batches and a mean per row: every value and weight is equal to the bit."""
    line = [*TINY, "steps=300", "log_every=7", "checkpoint_every=10", "validation.every=90", "accumulate=2", "network.dropout=0.1"]
    train(*line, "output_dir=whole")
    codes = []
    for turn, number in enumerate(STOPS):
        process = Run(folder, *line, script="train.py", environment=OWN | {"HOME": str(folder)})
        assert process.wait_until(lambda step=40 * (turn + 1): at_step(folder / "out", step))
        process.send(number)
        done = process.wait()
        codes.append(done.returncode)
        told = done.stdout + done.stderr
        if number == signal.SIGKILL:
            continue
        assert f"stopped by {number.name} at step" in told and "run the same command to resume" in told
    assert codes == [-9, 143, 130, -9]
    done = train(*line)
    assert "resuming from" in done.stdout
    assert rows(folder / "out") == rows(folder / "whole")
    assert_same_weights(folder / "out", folder / "whole")
    assert not [p for p in (folder / "out").rglob("*") if p.name.startswith(".")]
    assert "already trained" in train(*line).stdout


AT_LAST = [(signal.SIGUSR1, 2), (signal.SIGTERM, 2)]
BETWEEN = [(signal.SIGTERM, 4), (signal.SIGINT, 8), (signal.SIGKILL, 8)]


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "stops"), [(10, BETWEEN), (2, AT_LAST)], ids=["between steps", "after the last step"])
def test_a_stop_during_validation_loses_nothing(train, folder, steps, stops):
    """Stopped by each signal and by kill -9 while a step is validated. The resumed run makes up for the validation."""
    long = ["validation.samples=3", "validation.restore=2", "validation.grid.steps=60", "validation.denoise=4"]
    line = [*TINY, *long, f"steps={steps}", "log_every=3", "checkpoint_every=1000", "validation.every=4", "network.dropout=0.1"]
    train(*line, "output_dir=whole")
    for number, step in stops:
        before = time.time()
        process = Run(folder, *line, script="train.py", environment=OWN | {"HOME": str(folder)})
        assert process.wait_until(lambda step=step, before=before: opened(folder / "out", before) and at_step(folder / "out", step))
        process.wait_until(lambda: False, seconds=0.3)
        process.send(number)
        done = process.wait(20)
        assert done.returncode == (-9 if number == signal.SIGKILL else 128 + number), f"{done.stdout}{done.stderr}"
        assert number == signal.SIGKILL or f"stopped by {number.name} at step {step} of {steps}; run the same command" in done.stderr
        assert not validated(folder / "out", step)
    train(*line)
    assert rows(folder / "out") == rows(folder / "whole") and validated(folder / "out", steps)
    assert_same_weights(folder / "out", folder / "whole")
    sheets = [{str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*.png")} for run in (folder / "out", folder / "whole")]
    assert sheets[0] == sheets[1] and len(sheets[0]) >= 3


def opened(out: Path, after: float) -> bool:
    """Whether a run began in `out` after that time."""
    return (out / "config.yaml").exists() and (out / "config.yaml").stat().st_mtime > after


def validated(out: Path, step: int) -> bool:
    return any(row["step"] == str(step) and row["val_loss"] for row in rows(out))


def at_step(out: Path, step: int) -> bool:
    return any(int(path.stem.removeprefix("step-")) >= step for path in out.glob("checkpoints/step-*.ckpt"))


@pytest.mark.slow
def test_a_longer_run_in_more_micro_batches_resumes_before_a_damaged_checkpoint(train, folder):
    """The newest file is truncated, so the one before is used and reported. Length and accumulation may change."""
    line = [*TINY, "lr_schedule=constant", *FAST, "log_every=1", "checkpoint_every=5", "validation.every=1000"]
    train(*line, "steps=20", "output_dir=whole")
    train(*line, "steps=10")
    newest = folder / "out" / "checkpoints" / "step-00000010.ckpt"
    newest.write_bytes(newest.read_bytes()[:5000])
    done = train(*line, "steps=20", "accumulate=2")
    assert f"damaged and ignored: {Path('out/checkpoints/step-00000010.ckpt')}" in done.stdout and "step-00000005.ckpt" in done.stdout
    assert yaml.safe_load((folder / "out" / "prior" / "card.yaml").read_text())["training"]["steps"] == 20
    (folder / "out" / "prior" / "card.yaml").write_text("training: {steps: 10}")  # as if killed before the export
    assert "already trained" not in train(*line, "steps=20").stdout
    assert yaml.safe_load((folder / "out" / "prior" / "card.yaml").read_text())["training"]["steps"] == 20
    seen = {row["step"]: float(row["loss"]) for row in rows(folder / "out") if row["loss"]}
    for row in rows(folder / "whole"):
        if row["loss"]:
            assert seen[row["step"]] == pytest.approx(float(row["loss"]), rel=2e-3)


@pytest.mark.slow
def test_two_processes_train_like_one(train, folder):
    """trainer=ddp with gloo on the CPU: equal losses and weights up to rounding, and one process prints."""
    line = [*TINY, *FAST, "steps=6", "log_every=1", "validation.every=3", "batch_size=8"]
    train(*line, "output_dir=one")
    done = train(*line, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    assert done.stdout.count("held out") == 1 and done.stdout.count("use it:") == 1
    one, two = rows(folder / "one"), rows(folder / "out")
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for a, b in zip(one, two, strict=True):
        for key, value in a.items():
            assert (value == "") == (b[key] == "") and (not value or float(b[key]) == pytest.approx(float(value), rel=1e-3)), key
    for name, tensor in weights(folder / "one").items():
        torch.testing.assert_close(weights(folder / "out")[name], tensor, rtol=1e-3, atol=1e-4)  # a step moves them by 3e-3


@pytest.mark.slow
def test_two_stopped_processes_end_together_and_one_process_resumes(train, folder):
    """Started by torchrun, as on a cluster. The same command on one device then gives equal losses up to rounding."""
    line = [*TINY, *FAST, "steps=40", "log_every=1", "validation.every=1000", "batch_size=8", "checkpoint_every=15"]
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    train(*line, "output_dir=whole")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", str(ROOT / "train.py"), *line, *two]
    process = subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while process.poll() is None and not at_step(folder / "out", 15):
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)  # torchrun forwards it to both
    told, _ = process.communicate(timeout=120)
    assert process.returncode != 0 and told.count("stopped by SIGTERM at step") == 1
    assert "resuming from" in train(*line).stdout
    for a, b in zip(rows(folder / "whole"), rows(folder / "out"), strict=True):
        assert a["step"] == b["step"] and (not a["loss"] or float(b["loss"]) == pytest.approx(float(a["loss"]), rel=2e-3))


LEARNED = {
    "image_size": 16,
    "num_channels": 8,
    "channel_mult": (1, 2),
    "attention_resolutions": (),
    "num_head_channels": 8,
    "learn_sigma": True,
    "min_group_channels": 4,
}


def test_fine_tuning_keeps_preconditioning_schedule_and_learned_variance(train, folder):
    """Start from a guided-diffusion file, with a rate near zero: the weights stay the same, and the card describes them."""
    torch.manual_seed(0)
    network = UNet(**LEARNED)
    torch.nn.init.normal_(network.out[2].weight, std=0.1)
    torch.save(network.state_dict(), folder / "given.pt")
    flags = [
        f"prior.network.{name}={list(value) if isinstance(value, tuple) else value}".replace(" ", "") for name, value in LEARNED.items()
    ]
    chosen = ["schedule@prior.schedule=cosine", "preconditioning@prior.preconditioning=v"]
    train(*COMMON, "prior=given.pt", "prior.size=[16,16]", *flags, *chosen, "steps=2", "optimiser.lr=1e-12")
    card = yaml.safe_load((folder / "out" / "prior" / "card.yaml").read_text())
    assert card["network"]["learn_sigma"] and card["schedule"]["kind"] == "cosine" and card["preconditioning"] == "v"
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(weights(folder / "out")[name], tensor)  # up to the rounding of the average
    again = ["prior=out/prior", "steps=2", "optimiser.lr=1e-2", "lr_schedule.warmup=0", "validation.every=1"]
    train(*COMMON, "output_dir=again", *again)
    card = yaml.safe_load((folder / "again" / "prior" / "card.yaml").read_text())
    assert card["network"]["learn_sigma"] and card["schedule"]["kind"] == "cosine" and card["preconditioning"] == "v"
    moved = weights(folder / "again")["out.2.weight"] - network.state_dict()["out.2.weight"]
    assert moved[:3].abs().max() > 1e-6 and moved[3:].abs().max() > 1e-6


def test_a_loss_that_is_not_finite_is_reported_and_leaves_no_bad_checkpoint(train, folder):
    wild = ["optimiser.lr=1e30", "clip=null", "lr_schedule.warmup=0", "checkpoint_every=1", "steps=40", "validation.every=1000"]
    done = train(*TINY, *wild, code=1)
    assert "no longer" in done.stderr and "step" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    for path in (folder / "out" / "checkpoints").glob("*.ckpt"):
        content = torch.load(path, weights_only=True)
        assert all(tensor.isfinite().all() for tensor in content["current_model_state"].values())
    assert not (folder / "out" / "prior").exists()


def test_unreadable_images_are_listed_and_skipped(train, folder):
    (folder / "images" / "broken.png").write_bytes(b"no image")
    Image.new("RGB", (8, 8)).save(folder / "images" / "small.png")
    done = train(*TINY, "steps=1")
    assert "skipped 2 images" in done.stdout
    assert "broken.png: " in done.stdout and "small.png: it is 8 x 8, smaller than 16 x 16" in done.stdout
    with (folder / "out" / "skipped.csv").open() as stream:
        assert [row["image"] for row in csv.DictReader(stream)] == ["broken.png", "small.png"]


def test_wandb_offline_files_contain_the_values_of_metrics_csv(train, folder):
    """Read back from wandb's own records: the configuration, every value of every row, and the sheets."""
    shown = ["validation.samples=2", "validation.restore=1", "validation.every=2", "log_every=1"]
    labels = ["logger.group=some", "logger.tags=[a,b]", "logger.notes=why", "logger.job_type=training"]
    train(*TINY, *shown, "steps=3", "logger=wandb", "logger.project=tests", *labels)
    (file,) = (folder / "out" / "wandb").glob("offline-run-*/*.wandb")
    run = wandb_file.run(file)
    assert (run.project, run.run_group, list(run.tags), run.notes, run.job_type) == ("tests", "some", ["a", "b"], "why", "training")
    config = yaml.safe_load((folder / "out" / "config.yaml").read_text())["config"]
    assert wandb_file.config(file)["optimiser"] == config["optimiser"]
    assert wandb_file.config(file)["choices"]["optimiser"] == "adamw"
    logged: dict[str, dict] = {}
    for entry in wandb_file.history(file):
        before = logged.setdefault(str(entry["trainer/global_step"]), {})
        twice = {key for key in before.keys() & entry.keys() if not key.startswith(("_", "trainer/"))}
        assert not twice  # each value is logged once
        before.update(entry)
    names = {key for entry in logged.values() for key in entry if not key.startswith(("_", "trainer/"))}
    assert all(name.startswith(("train/", "validation/")) for name in names)
    assert set(logged) == {"1", "2", "3"}
    for row in rows(folder / "out"):
        for key, value in row.items():
            group = "train" if key in ("images", "loss", "lr", "images_per_second") else "validation"
            assert key == "step" or not value or logged[row["step"]][f"{group}/{key}"] == pytest.approx(float(value))
    for step in ("2", "3"):
        for sheet in ("samples", "restoration"):
            assert (file.parent / "files" / logged[step][f"validation/{sheet}.filenames"][0]).is_file()


def test_a_second_run_in_the_same_folder_is_told_who_has_it(train, folder):
    """The first run continues, stops when it is asked to, and leaves no lock."""
    first = Run(folder, *TINY, "steps=100000", script="train.py", environment=OWN | {"HOME": str(folder)})
    assert first.wait_until((folder / "out" / "config.yaml").exists)
    done = train(*TINY, "steps=100000", code=2)
    assert f"out is in use by process {first.process.pid} on " in done.stderr and len(done.stderr.splitlines()) == 1
    first.send(signal.SIGTERM)
    assert first.wait().returncode == 143 and not [path for path in (folder / "out").iterdir() if path.name.startswith(".")]


def test_the_wall_time_stops_a_run(train, folder):
    done = train(*TINY, "steps=100000", "max_hours=1e-6", code=124)
    assert "stopped by max_hours at step 1 of 100000" in done.stderr
    assert (folder / "out" / "checkpoints" / "step-00000001.ckpt").is_file()


def test_a_sweep_trains_each_job_in_its_folder(train, folder):
    train("-m", *TINY, "steps=1", "optimiser.lr=1e-4,1e-2")
    rates = [float(rows(folder / "out" / str(job))[0]["lr"]) for job in (0, 1)]
    assert rates[1] == pytest.approx(100 * rates[0])


def test_a_sweep_of_jobs_in_several_processes_is_refused(train, folder):
    """Each process would run the whole sweep. Each job is refused in one line, and the next job still runs."""
    done = train("-m", *TINY, "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "seed=1,2", code=1)
    first, second, last = done.stderr.strip().splitlines()
    assert first.startswith("error: 0: a sweep cannot run a job") and second.startswith("error: 1: a sweep cannot run a job")
    assert last == "error: 2 jobs of the sweep failed; their tracebacks: out/*/error.txt"
