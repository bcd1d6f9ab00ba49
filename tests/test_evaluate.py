"""evaluate.py as a user runs it: what it writes, what its numbers are, what it refuses."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shlex
import shutil
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from misfortune import break_writing, no_room
from PIL import Image
from safetensors.torch import load_file
from tiny_evaluation import (
    TINY,
    assert_same,
    assert_whole,
    draw_images,
    evaluate,
    images,
    pixels,
    posterior,
    psnr,
    records,
    results,
    summary,
    the_line,
)

pytestmark = pytest.mark.script

CORES = os.cpu_count()
CPUS = ["trainer=ddp", "trainer.accelerator=cpu"]
IMAGES, SAMPLES = 5, 3
LINE = ["data.root=images", f"num_samples={SAMPLES}", "batch_size=4"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A folder with images and a finished run in `run`; its output is in the file `printed`."""
    folder = tmp_path_factory.mktemp("whole")
    draw_images(folder / "images", IMAGES, (20, 24))
    (folder / "printed").write_text(evaluate(folder, *LINE, "output_dir=run").stdout)
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    draw_images(tmp_path / "images", IMAGES, (20, 24))
    return tmp_path


def names() -> list[str]:
    return [f"face-{i:02}" for i in range(IMAGES)]


# What a run writes


def test_a_run_writes_the_documented_files(whole):
    run = whole / "run"
    left = {"config.yaml", "figure.png", "images", "posterior.jsonl", "records.jsonl", "report.html", "summary.json"}
    assert {path.name for path in run.iterdir()} == left
    kinds = {"truth.png", "measurement.png", "mean.png", "std.png", *(f"restoration-{k}.png" for k in range(SAMPLES))}
    assert {path.name for path in (run / "images").iterdir()} == {*names()}
    assert all({path.name for path in (run / "images" / name).iterdir()} == kinds for name in names())
    found = records(run)
    assert [(one["id"], one["sample"]) for one in found] == [(name, k) for name in names() for k in range(SAMPLES)]
    assert all((one["nfe_forward"], one["nfe_vjp"], one["seed"], one["error"], one["lpips"]) == (3, 3, 0, None, None) for one in found)
    assert all(one["sigma_y"] == pytest.approx(0.05) and one["seconds"] > 0 and one["peak_memory_mib"] > 10 for one in found)
    assert Image.open(run / "figure.png").height >= IMAGES * 64
    page = (run / "report.html").read_text()
    assert all(name in page for name in names()) and f"{found[0]['psnr']:.2f}" in page


def test_config_yaml_holds_the_command_that_made_the_run(whole):
    kept = yaml.safe_load((whole / "run" / "config.yaml").read_text())
    assert kept["overrides"] == [*TINY, *LINE, "output_dir=run"] and kept["command"].startswith("python evaluate.py prior=custom ")
    assert kept["config"]["grid"]["steps"] == 3 and kept["config"]["num_samples"] == SAMPLES and kept["choices"]["solver"] == "dps"
    assert kept["source"]["packages"]["torch"] == version("torch")


def test_the_printed_table_is_the_summary(whole):
    printed, found = (whole / "printed").read_text(), summary(whole / "run")["statistics"]
    rows = {
        "measurement": "measurement",
        "single": f"single sample of {SAMPLES}",
        "posterior_mean": f"posterior mean of {SAMPLES} samples",
        "least_residual": f"least residual of {SAMPLES} samples",
        "best_of_n": f"best of {SAMPLES} samples",
    }
    for key, label in rows.items():
        (line,) = [line for line in printed.splitlines() if line.startswith(label)]
        one = found[key]["psnr"]
        assert f"{one['mean']:.2f} ± {one['se']:.2f} [{one['low']:.2f}, {one['high']:.2f}]" in line
    assert "sigma_y 0.05 in [-1, 1] = 0.025 in [0, 1]" in printed and "NFE 3 forward + 3 vjp" in printed
    assert all(f"{Path('run') / name}" in printed for name in ("images", "figure.png", "report.html"))


# What the numbers are


def test_records_are_the_scores_of_the_images_as_saved(whole):
    for one in records(whole / "run"):
        images = whole / "run" / "images" / one["id"]
        truth = pixels(images / "truth.png")
        for key, file in (("psnr", f"restoration-{one['sample']}"), ("psnr_measurement", "measurement")):
            assert one[key] == pytest.approx(psnr(pixels(images / f"{file}.png"), truth), abs=1e-4)
        assert one["ssim"] == pytest.approx(ssim(pixels(images / f"restoration-{one['sample']}.png"), truth), abs=1e-5)


def ssim(image: np.ndarray, truth: np.ndarray) -> float:
    """The mean over the windows of 11 x 11 pixels that lie in the image."""
    from torchmetrics.functional.image import structural_similarity_index_measure  # seconds to import

    both = (torch.from_numpy(one).permute(2, 0, 1)[None].float() for one in (image, truth))
    _, everywhere = structural_similarity_index_measure(*both, data_range=1.0, return_full_image=True)
    return everywhere[..., 5:-5, 5:-5].mean().item()


def assert_estimate(found: dict, values: list[float]) -> None:
    """`found` holds the mean, s / √n and mean ± t s / √n of `values`, one per image."""
    n, mean, se = len(values), np.mean(values), np.std(values, ddof=1) / np.sqrt(len(values))
    from scipy import stats  # slow to import

    half = stats.t.ppf(0.975, n - 1) * se
    assert found == {"n": n} | {
        key: pytest.approx(v, rel=1e-9) for key, v in zip(FIELDS, (mean, se, mean - half, mean + half), strict=True)
    }


FIELDS = ("mean", "se", "low", "high")


def test_the_summary_follows_from_the_records(whole):
    """The units are images: the samples of an image are averaged first."""
    found, kept = summary(whole / "run"), records(whole / "run")
    assert (found["images"], found["records"], found["failed"], found["complete"]) == (IMAGES, IMAGES * SAMPLES, 0, True)

    def by_image(key):
        return [[one[key] for one in kept if one["id"] == name] for name in names()]

    for metric in ("psnr", "ssim"):
        own = by_image(metric)
        assert_estimate(found["statistics"]["single"][metric], [np.mean(values) for values in own])
        assert_estimate(found["statistics"]["best_of_n"][metric], [max(values) for values in own])
        chosen = [np.argmin(residuals) for residuals in by_image("residual")]
        least = [values[sample] for values, sample in zip(own, chosen, strict=True)]
        assert_estimate(found["statistics"]["least_residual"][metric], least)
        assert_estimate(found["statistics"]["measurement"][metric], [values[0] for values in by_image(f"{metric}_measurement")])
        assert_estimate(found["statistics"]["posterior_mean"][metric], [one[metric] for one in posterior(whole / "run")])
    assert_estimate(found["statistics"]["single"]["residual"], [np.mean(values) for values in by_image("residual")])


def test_the_posterior_scores_are_those_of_the_written_images(whole):
    """The mean of the 8-bit samples, scored as saved, and their standard deviation."""
    for one in posterior(whole / "run"):
        images = whole / "run" / "images" / one["id"]
        truth, samples = pixels(images / "truth.png"), np.stack([pixels(images / f"restoration-{k}.png") for k in range(SAMPLES)])
        mean, deviation = samples.mean(0), samples.std(0, ddof=1)
        assert np.abs(pixels(images / "mean.png") - mean).max() <= 0.5001 / 255
        assert np.abs(pixels(images / "std.png") - (deviation.mean(2) / 0.25).clip(0, 1)).max() <= 0.5001 / 255
        assert one["psnr"] == pytest.approx(psnr(pixels(images / "mean.png"), truth), abs=1e-4)
        assert one["ssim"] == pytest.approx(ssim(pixels(images / "mean.png"), truth), abs=1e-5)
        assert one["deviation"] == pytest.approx(deviation.mean(), rel=1e-5) and deviation.mean() > 0.01


def test_samples_of_an_image_share_only_their_measurement(whole):
    for name in names():
        own = [one for one in records(whole / "run") if one["id"] == name]
        assert len({one["measurement_hash"] for one in own}) == len({one["psnr_measurement"] for one in own}) == 1
        assert len({(whole / f"run/images/{name}/restoration-{k}.png").read_bytes() for k in range(SAMPLES)}) == SAMPLES
    assert len({one["measurement_hash"] for one in records(whole / "run")}) == IMAGES


# What changes nothing


def assert_alike(run: Path, reference: list[dict], images_of: Path) -> None:
    """The results equal those of the reference except for rounding: of floats in the records, by one of 255 levels in the images."""
    for one, other in zip(results(run), reference, strict=True):
        assert one["hashes"]["truth"] == other["hashes"]["truth"]
        assert one["ssim"] == pytest.approx(other["ssim"], abs=1e-4)  # of 36 windows, one level of one pixel is in eleven times eleven
        compared = {key: value for key, value in one.items() if key not in ("hashes", "ssim")}
        assert compared == {key: pytest.approx(other[key], rel=1e-4) if isinstance(other[key], float) else other[key] for key in compared}
        path = f"images/{one['id']}/restoration-{one['sample']}.png"
        assert np.abs(pixels(run / path) - pixels(images_of / path)).max() <= 1.001 / 255


@pytest.mark.parametrize("size", [1, 15])
def test_the_batch_size_changes_no_result(whole, size):
    evaluate(whole, *LINE, f"batch_size={size}", f"output_dir=size-{size}")
    assert_alike(whole / f"size-{size}", results(whole / "run"), whole / "run")


def fork_workers() -> None:
    """Workers are forked, as in a process started by a shell. With the fork server each worker would import everything."""
    multiprocessing.set_start_method("fork", force=True)


def test_the_order_and_number_of_images_change_no_result(whole):
    """Two of the images in another order, read ahead by processes; and one more sample."""
    some = f"data.root=[images/{names()[3]}.png,images/{names()[1]}.png]"
    evaluate(whole, some, "num_samples=3", "data.workers=2", "batch_size=6", "output_dir=some", before=fork_workers)
    assert_alike(whole / "some", [one for one in results(whole / "run") if one["id"] in (names()[1], names()[3])], whole / "run")
    evaluate(whole, "data.root=images", "data.limit=2", "num_samples=4", "output_dir=first")
    first = [one for one in results(whole / "first") if one["sample"] < SAMPLES]
    expected = [one for one in results(whole / "run") if one["id"] in names()[:2]]
    assert [(one["id"], one["psnr"]) for one in first] == [(one["id"], pytest.approx(one["psnr"], rel=1e-4)) for one in expected]


def test_a_run_resumes_from_its_records_with_another_batch_size(whole):
    shutil.copytree(whole / "run", whole / "part")
    lines = (whole / "run" / "records.jsonl").read_text().splitlines(keepends=True)
    kept = [lines[i] for i in (0, 1, 2, 3, 7)]
    (whole / "part" / "records.jsonl").write_text("".join(kept))
    for name in ("summary.json", "posterior.jsonl"):
        (whole / "part" / name).unlink()
    done = evaluate(whole, *LINE, "batch_size=2", "output_dir=part")
    assert f"5 of {IMAGES * SAMPLES} restorations are on record; resuming" in done.stdout
    assert_alike(whole / "part", results(whole / "run"), whole / "run")
    assert {*(line.strip() for line in kept)} <= {*(whole / "part" / "records.jsonl").read_text().splitlines()}


def test_a_finished_run_is_not_repeated(whole):
    before = {path: path.stat().st_mtime_ns for path in (whole / "run").rglob("*")}
    done = evaluate(whole, *LINE, "output_dir=run")
    assert done.stdout.startswith("already evaluated: run")
    assert done.stdout.split("\n\n", 1)[1] == (whole / "printed").read_text().split("\n\n", 1)[1]
    assert {path: path.stat().st_mtime_ns for path in (whole / "run").rglob("*")} == before


def test_without_an_output_dir_the_folder_is_named_after_the_command(folder):
    evaluate(folder, "data.root=images", "data.limit=2")
    (run,) = (folder / "outputs" / "evaluate").iterdir()
    assert "data.limit=2" in run.name and "data.root=images" in run.name
    assert evaluate(folder, "data.limit=2", "batch_size=1", "data.root=images").stdout.startswith("already evaluated")


def test_overwriting_starts_over(folder):
    evaluate(folder, "data.root=images", "output_dir=run", "num_samples=2")
    evaluate(folder, "data.root=images", "output_dir=run", "seed=1", "data.limit=2", "overwrite=true")
    evaluate(folder, "data.root=images", "output_dir=other", "seed=1", "data.limit=2")
    assert_same(folder / "run", folder / "other")


# Frozen measurements


def test_frozen_measurements_equal_those_of_the_run(folder):
    """Every solver sees the frozen y, whatever its seed, and gives the same results as without the files."""
    random = ["operator=inpaint_random", "batch_size=2"]
    done = evaluate(folder, "data.root=images", *random, "data.freeze=frozen", "output_dir=frozen-run")
    evaluate(folder, "data.root=images", *random, "output_dir=plain-run")
    assert_same(folder / "frozen-run", folder / "plain-run")
    manifest = json.loads((folder / "frozen" / "measurements.json").read_text())
    assert f"SHA-256 {manifest['hash']}" in done.stdout and [*manifest["images"]] == names()
    for name in names():
        content = load_file(folder / "frozen" / f"{name}.safetensors")
        mask = content["operator.mask"].bool().expand_as(content["y"])
        assert 0 < mask.float().mean() < 1
        assert (content["y"] - content["x0"])[mask].std().item() == pytest.approx(0.05, rel=0.3)
    sdedit = [*random, "solver=sdedit", "solver.t_star=500"]
    evaluate(folder, "data.measurements=frozen", *sdedit, "output_dir=from-frozen")
    evaluate(folder, "data.root=images", *sdedit, "output_dir=from-images")
    assert_same(folder / "from-frozen", folder / "from-images")
    evaluate(folder, "data.measurements=frozen", *sdedit, "seed=1", "output_dir=seed")
    both = list(zip(results(folder / "seed"), results(folder / "from-frozen"), strict=True))
    assert all(a["measurement_hash"] == b["measurement_hash"] and a["psnr"] != b["psnr"] for a, b in both)


# Images of another program, and two runs


def test_images_of_another_program_get_the_same_scores(whole):
    """The restorations of a run under the names of their truths get the scores of the run; images without a counterpart are listed."""
    for kind, file in (("restored", "restoration-0"), ("truths", "truth")):
        (whole / kind).mkdir()
        for name in names():
            shutil.copy(whole / "run" / "images" / name / f"{file}.png", whole / kind / f"{name}.png")
    (whole / "restored" / f"{names()[0]}.png").rename(whole / "restored" / "stranger.png")
    done = evaluate(whole, "samples=restored", "truth=truths", "output_dir=scores")
    assert "truth has no image of that name: 1 (stranger)" in done.stdout and f"no image of that name: 1 ({names()[0]})" in done.stdout
    expected = {one["id"]: (one["psnr"], one["ssim"]) for one in records(whole / "run") if one["sample"] == 0 and one["id"] != names()[0]}
    assert {one["id"]: (one["psnr"], one["ssim"]) for one in records(whole / "scores")} == expected
    assert_estimate(summary(whole / "scores")["statistics"]["single"]["psnr"], [value[0] for value in expected.values()])
    assert (whole / "scores" / "report.html").exists()
    assert evaluate(whole, "samples=restored", "truth=truths", "output_dir=scores").stdout.startswith("already scored")


def test_two_runs_are_paired_image_by_image(whole):
    evaluate(whole, "data.root=images", "num_samples=3", "solver.zeta=0.1", "output_dir=other")
    printed = evaluate(whole, "compare=[run,other]").stdout
    per = [[np.mean([r["psnr"] for r in records(whole / run) if r["id"] == name]) for name in names()] for run in ("run", "other")]
    difference = np.subtract(*per)
    (row,) = [line for line in printed.splitlines() if line.startswith("PSNR")]
    assert f"{difference.mean():.2f}".replace("-", "−") in row and f"images in common: {IMAGES}" in printed
    assert [int(count) for count in row.split()[-4:]] == [int((difference > 0).sum()), int((difference < 0).sum()), 0, IMAGES]
    assert re.search(r"solver\.zeta\s+0\.25\s+0\.1", printed)


# Sweeps


@pytest.mark.slow
def test_a_sweep_continues_after_a_failed_job_and_skips_finished_ones(folder):
    """The job fails while a file exists. Once it is deleted, the same command runs this job only."""
    sweep = ["-m", "data.root=images", "output_dir=sweep"]
    two = [*sweep, "+prior.network.broken=nowhere,wrong"]
    (folder / "wrong").touch()
    done = evaluate(folder, *two, code=1)
    good, bad = (next((folder / "sweep").glob(f"*broken={value}*")) for value in ("nowhere", "wrong"))
    assert "Traceback" in (bad / "error.txt").read_text() and "the network is broken" in (bad / "error.txt").read_text()
    printed, end = done.stderr.strip().splitlines()[-2:]
    assert printed.startswith(f"error: {bad.name}: ") and "the network is broken" in printed and "1 job of the sweep failed" in end
    assert not (bad / "summary.json").exists() and len(records(good)) == IMAGES
    assert {"leaderboard.html", "leaderboard.csv", "leaderboard.md"} <= {path.name for path in (folder / "sweep").iterdir()}
    before = {path: path.stat().st_mtime_ns for path in good.rglob("*")}
    (folder / "wrong").unlink()
    done = evaluate(folder, *two)
    assert f"already evaluated: {Path('sweep') / good.name}" in done.stdout.replace(f"{folder}/", "")
    assert {path: path.stat().st_mtime_ns for path in good.rglob("*")} == before
    assert not (bad / "error.txt").exists() and results(bad) == results(good)
    assert len((folder / "sweep" / "leaderboard.csv").read_text().splitlines()) == 3
    more = evaluate(folder, *sweep, "+prior.network.broken=nowhere,wrong,elsewhere")
    assert more.stdout.count("already evaluated") == 2 and len((folder / "sweep" / "leaderboard.csv").read_text().splitlines()) == 4
    (line,) = [line for line in more.stdout.splitlines() if line.startswith("the first two, image by image: python evaluate.py ")]
    (argument,) = shlex.split(line)[8:]
    assert f"images in common: {IMAGES}" in evaluate(folder, argument).stdout


def test_a_solver_that_is_not_applicable_is_no_failure_of_a_sweep(folder):
    """Its reason is kept and listed, the other jobs are done, and the exit code is 0; alone it is 2."""
    blur = ["data.root=images", "data.limit=2", "operator=deblur_motion", "operator.size=5"]
    done = evaluate(folder, "-m", *blur, "solver=ddrm,dps", "output_dir=sweep")
    (good,), (other,) = ([path.parent for path in (folder / "sweep").glob(f"*/{file}")] for file in ("summary.json", "not_applicable.txt"))
    reason = "DDRM needs an operator with a known singular value decomposition, and DeblurMotion with Gaussian noise does not give it"
    assert (other / "not_applicable.txt").read_text().startswith(reason) and not (other / "error.txt").exists()
    assert f"not applicable: {other.name}: {reason}" in done.stderr and "failed" not in done.stderr
    board = (folder / "sweep" / "leaderboard.md").read_text()
    assert len(records(good)) == 2 and reason in board and "applicable" in board
    assert reason in the_line(evaluate(folder, *blur, "solver=ddrm", "output_dir=alone", code=2))
    assert not (folder / "alone").exists()


def test_the_prior_of_a_method_that_is_not_applicable_is_not_loaded(folder):
    """The parts that are used together are compared before weights are read: these do not exist."""
    missing = ["prior.checkpoint={_target_: diffusion_priors.diffusion.checkpoints.Checkpoint, path: nowhere.pt}", "data.root=images"]
    assert "uses no sampler; leave out sampler=ddim" in refused(folder, *missing, "solver=ddrm", "sampler=ddim")
    assert "no checkpoint at nowhere.pt" in refused(folder, *missing)


# What is refused


def test_another_configuration_in_the_same_folder_is_refused_with_the_difference(whole):
    before = images(whole / "run"), (whole / "run" / "config.yaml").read_bytes(), (whole / "run" / "records.jsonl").read_bytes()
    line = the_line(evaluate(whole, *LINE, "output_dir=run", "solver.zeta=0.5", "seed=7", code=2))
    assert "seed was 0, is 7" in line and "solver.zeta was 0.25, is 0.5" in line and "overwrite=true" in line and "grid" not in line
    assert before == (images(whole / "run"), (whole / "run" / "config.yaml").read_bytes(), (whole / "run" / "records.jsonl").read_bytes())


def test_deleted_and_changed_images_are_refused_and_new_ones_added(folder):
    """Also where the run was finished, and for images of another program: the results would be of images that no longer exist."""
    copy = folder / "restored"
    shutil.copytree(folder / "images", copy)
    lines = (["data.root=images", "output_dir=run"], ["samples=restored", "truth=images", "output_dir=scores"])
    for line in lines:
        evaluate(folder, *line)
    kept = {path: path.read_bytes() for path in (folder / "images").iterdir()}
    new, old = folder / "images" / "face-99.png", folder / "images" / "face-01.png"
    old.write_bytes(kept[folder / "images" / "face-02.png"])
    for line in lines:
        assert f"face-01 is not the image that {line[-1].removeprefix('output_dir=')} has a record of" in refused(folder, *line)
    old.unlink()
    for line in lines:
        assert "has records of 1 image that is not here any more (face-01); choose another output_dir" in refused(folder, *line)
    old.write_bytes(kept[old])
    for place in ("images", "restored"):
        shutil.copy(old, folder / place / new.name)
    for line, run in zip(lines, ("run", "scores"), strict=True):
        evaluate(folder, *line)
        assert summary(folder / run)["images"] == len(records(folder / run)) == IMAGES + 1


def refused(folder: Path, *line: str) -> str:
    return the_line(evaluate(folder, *line, code=2))


def tamper_byte(frozen: Path) -> None:
    path = frozen / "face-01.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def tamper_manifest(change: Callable[[dict], object], frozen: Path) -> None:
    content = json.loads((frozen / "measurements.json").read_text())
    change(content)
    (frozen / "measurements.json").write_text(json.dumps(content))


def in_manifest(change: Callable[[dict], object]) -> Callable[[Path], None]:
    return partial(tamper_manifest, change)


def nothing(frozen: Path) -> None:
    pass


DAMAGED = "measurements.json is damaged"


TAMPERED = {
    "a byte": (tamper_byte, [], "face-01.safetensors is missing or not the file that was frozen (its SHA-256 differs)"),
    "a file": (lambda frozen: (frozen / "face-02.safetensors").unlink(), [], "face-02.safetensors is missing"),
    "an unknown image": (in_manifest(lambda found: found["images"].update(stranger="0" * 64)), [], DAMAGED),
    "an image less": (in_manifest(lambda found: found["images"].pop("face-00")), [], DAMAGED),
    "no images": (in_manifest(lambda found: found.pop("images")), [], DAMAGED),
    "another version": (in_manifest(lambda found: found.update(version=9)), [], "measurements.json is of version 9"),
    "another operator": (nothing, ["operator=inpaint_random"], "were made otherwise: operator._target_ was"),
    "another noise": (nothing, ["noise_model.sigma=0.1"], "noise_model.sigma was 0.05, is 0.1; set these as they were"),
    "another size": (nothing, ["prior.size=[32,32]"], "are of images (3, 16, 16), the prior's are (3, 32, 32)"),
}


@pytest.fixture(scope="module")
def frozen(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("frozen")
    draw_images(folder / "images", 3)
    evaluate(folder, "data.root=images", "data.freeze=frozen", "output_dir=run")
    return folder


@pytest.mark.parametrize("case", TAMPERED)
def test_frozen_measurements_that_were_changed_are_refused(frozen, tmp_path, case):
    shutil.copytree(frozen / "frozen", tmp_path / "frozen")
    change, overrides, message = TAMPERED[case]
    change(tmp_path / "frozen")
    assert message in the_line(evaluate(tmp_path, "data.measurements=frozen", "output_dir=out", *overrides, code=2))
    assert not (tmp_path / "out").exists()


def test_frozen_measurements_are_not_overwritten_by_others(frozen):
    line = the_line(evaluate(frozen, "data.root=images", "data.freeze=frozen", "seed=1", "output_dir=other", code=2))
    assert "frozen holds other measurements: seed was 0, is 1" in line


# A full disk


def fill_disk(name: str) -> None:
    break_writing(pytest.MonkeyPatch(), name)


FULL = {
    "records.jsonl": partial(no_room, 4500),
    "restoration-1.png": partial(fill_disk, "restoration-1.png"),
    "figure.png": partial(fill_disk, "figure.png"),
    "summary.json": partial(fill_disk, "summary.json"),
}


@pytest.mark.parametrize("file", FULL)
def test_a_full_disk_is_reported_in_one_line_and_the_same_command_resumes(whole, tmp_path, file):
    shutil.copytree(whole / "images", tmp_path / "images")
    line = the_line(evaluate(tmp_path, *LINE, "output_dir=run", code=2, before=FULL[file]))
    assert f"cannot write run/images/face-00/{file}" in line or f"cannot write run/{file}" in line
    assert "make room or set another output_dir" in line
    kept = assert_whole(tmp_path / "run") if (tmp_path / "run" / "records.jsonl").exists() else 0
    assert not (tmp_path / "run" / "summary.json").exists()
    done = evaluate(tmp_path, *LINE, "output_dir=run")
    assert kept == 0 or f"{kept} of {IMAGES * SAMPLES} restorations are on record" in done.stdout
    assert_same(tmp_path / "run", whole / "run")


def test_a_folder_that_becomes_unwritable_is_reported_in_one_line(whole, tmp_path):
    """A file stands where the folder of images should be, because permissions do not stop root."""
    shutil.copytree(whole / "images", tmp_path / "images")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "images").touch()
    line = the_line(evaluate(tmp_path, *LINE, "output_dir=run", code=2))
    assert "run/images" in line
    os.unlink(tmp_path / "run" / "images")
    evaluate(tmp_path, *LINE, "output_dir=run")
    assert_same(tmp_path / "run", whole / "run")
