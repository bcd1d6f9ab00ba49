"""sample.py as a user runs it: in a process of its own."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from forks import ROOT, Run
from misfortune import no_room
from PIL import Image
from safetensors.torch import load_file

from diffusion_priors.diffusion.networks.unet import UNet

pytestmark = pytest.mark.script

FACES = sorted((ROOT / "examples" / "faces").glob("*.png"))
TINY = ["prior=custom", "prior.network._target_=broken_networks.Shrink", "prior.checkpoint=null", "prior.size=[16,16]"]
CHEAP = [*TINY, "grid.steps=4"]


@pytest.fixture
def sample(tmp_path):
    """Run sample.py with overrides, in tmp_path; LPIPS is off unless asked for, so nothing is fetched."""

    def run(*overrides: str, lpips: bool = False, code: int = 0, before: Callable[[], None] | None = None) -> subprocess.CompletedProcess:
        off = [] if lpips or any(o.startswith("metrics") for o in overrides) else ["metrics.lpips=null"]
        done = Run(tmp_path, *overrides, *off, script="sample.py", before=before).wait(500)
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        return done

    return run


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), dtype=np.float64)


def psnr(a: Path, b: Path) -> float:
    return -10 * np.log10(np.mean(((pixels(a) - pixels(b)) / 255) ** 2))


def test_the_default_run_restores_the_bundled_face(sample, tmp_path):
    """The main job at a small number of steps: the whole output contract, and a restoration better than the measurement."""
    done = sample("output_dir=out", "grid.steps=60")
    out = tmp_path / "out"
    (record,) = records(out)
    folder = out / "images" / record["id"]
    assert {p.name for p in folder.iterdir()} == {"truth.png", "measurement.png", "restoration-0.png"}
    assert record["psnr"] > record["psnr_measurement"] + 1.0
    assert record["psnr"] == pytest.approx(psnr(folder / "truth.png", folder / "restoration-0.png"), abs=1e-3)
    assert (record["nfe_forward"], record["nfe_vjp"], record["seed"], record["sample"]) == (60, 60, 0, 0)
    assert record["sigma_y"] == pytest.approx(0.05) and record["lpips"] is None and record["error"] is None
    assert Image.open(out / "figure.png").width >= 3 * 192
    summary = json.loads((out / "summary.json").read_text())
    assert summary["statistics"]["single"]["psnr"]["mean"] == record["psnr"]
    assert (summary["complete"], summary["images"], summary["failed"]) == (True, 1, 0)
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["config"]["solver"]["zeta"] == 0.25 and config["overrides"][0] == "output_dir=out"
    assert config["source"]["packages"]["torch"] == version("torch")
    assert config["command"] == "python sample.py output_dir=out grid.steps=60 metrics.lpips=null"
    assert config["choices"]["solver"] == "dps" and config["config"]["input"].endswith("face-1.png")
    assert "sigma_y 0.05 in [-1, 1] = 0.025 in [0, 1]" in done.stdout
    assert (
        f"{record['psnr']:.2f}" in done.stdout
        and "NFE 60 forward + 60 vjp" in done.stdout
        and str(Path("out") / "figure.png") in done.stdout
    )
    assert sorted(p.name for p in out.iterdir()) == ["config.yaml", "figure.png", "images", "records.jsonl", "report.html", "summary.json"]


def test_a_missing_lpips_trunk_is_a_footnote(sample, tmp_path):
    """Not configured, not cached and not downloadable (a closed port): the cell points to a footnote, and the run continues."""
    url = "metrics.lpips.url=http://127.0.0.1:9/alexnet-owt-7be5be79.pth"
    done = sample(*CHEAP, "output_dir=out", f"input={FACES[0]}", url, "prior.size=[32,32]")
    assert "– *" in done.stdout and "* LPIPS: the alex trunk is not available" in done.stdout
    assert records(tmp_path / "out")[0]["lpips"] is None and records(tmp_path / "out")[0]["psnr"] is not None


def test_images_of_every_kind_are_restored_in_several_samples(sample, tmp_path):
    """A folder with several formats, two samples each: both have the same measurement, and different sampling noise."""
    folder = tmp_path / "mine"
    (folder / "deep").mkdir(parents=True)
    face = Image.open(FACES[0])
    face.convert("P").save(folder / "palette.png")
    face.convert("L").save(folder / "grey.jpg")
    face.convert("RGBA").resize((300, 200)).save(folder / "deep" / "alpha.png")
    Image.fromarray(np.asarray(face.convert("L")).astype(np.uint16) * 257).save(folder / "deep" / "sixteen.png")
    sample(*CHEAP, "input=mine", "num_samples=2", "batch_size=3", "output_dir=out", "operator=deblur_motion", "operator.size=5")
    rows = records(tmp_path / "out")
    assert [(r["id"], r["sample"]) for r in rows] == [(n, k) for n in ("deep~alpha", "deep~sixteen", "grey.jpg", "palette") for k in (0, 1)]
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert first["psnr_measurement"] == second["psnr_measurement"]
        images = tmp_path / "out" / "images" / first["id"]
        assert not np.array_equal(pixels(images / "restoration-0.png"), pixels(images / "restoration-1.png"))


def test_a_degraded_image_is_restored_as_it_is(sample, tmp_path):
    """No metric has a value but the residual, and the known pixels come back."""
    box = np.full((64, 64), 255, dtype=np.uint8)
    box[16:48, 16:48] = 0
    Image.fromarray(box).save(tmp_path / "mask.png")
    face = np.asarray(Image.open(FACES[1]).convert("RGB").resize((64, 64), Image.Resampling.BOX)).copy()
    face[box == 0] = 0
    Image.fromarray(face).save(tmp_path / "damaged.png")
    overrides = ["measurement=damaged.png", "operator=inpaint_mask", "operator.path=mask.png", "noise_model.sigma=0.02", "output_dir=out"]
    done = sample(*overrides, "grid.steps=60")
    (record,) = records(tmp_path / "out")
    assert record["psnr"] is None and record["psnr_measurement"] is None and 0 < record["residual"] < 0.3
    restored = pixels(tmp_path / "out/images/damaged/restoration-0.png")
    assert np.abs(restored - face)[box == 255].mean() < np.abs(restored - face)[box == 0].mean()
    assert not (tmp_path / "out/images/damaged/truth.png").exists()
    assert f"{record['residual']:.4f}" in done.stdout


def test_a_small_measurement_is_used_at_its_own_size(sample, tmp_path):
    """The measurement of super-resolution is smaller than the image of the prior."""
    Image.open(FACES[0]).resize((4, 4), Image.Resampling.BOX).save(tmp_path / "small.png")
    sample(*CHEAP, "measurement=small.png", "operator=super_resolution", "noise_model=none", "output_dir=out", "fit=exact")
    assert Image.open(tmp_path / "out/images/small/measurement.png").size == (4, 4)
    assert Image.open(tmp_path / "out/images/small/restoration-0.png").size == (16, 16)


def test_the_k_space_of_a_scanner_is_restored_as_it_is(sample, tmp_path):
    """One channel by NumPy's FFT, twice its numbers for an image in [0, 1] and less the constant; columns outside the mask do not count."""
    grey = np.asarray(Image.open(FACES[0]).convert("L").resize((16, 16), Image.Resampling.BOX)) / 255.0
    kspace = 2.0 * np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(grey), norm="ortho"))
    kspace[8, 8] -= 16.0
    columns = np.arange(16) % 2 == 0
    np.save(tmp_path / "columns.npy", columns)
    np.save(tmp_path / "scan.npy", kspace + np.where(columns, 0.0, 1e3))
    mri = ["operator=mri", "kspace_mask@operator.mask=file", "operator.mask.path=columns.npy", "noise_model.sigma=0.01"]
    done = sample(*CHEAP, *mri, "solver=ddnm", "measurement=scan.npy", "output_dir=out")
    assert "y has one channel and is repeated for the 3 of the prior: scan.npy" in done.stdout
    folder = tmp_path / "out/images/scan.npy"
    y = load_file(folder / "measurement.safetensors")["y"].numpy()
    np.testing.assert_allclose(y, np.broadcast_to(kspace * columns, (3, 16, 16)), atol=1e-5)
    look = pixels(folder / "first-look.png").mean(-1) / 127.5 - 1.0
    expected = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace * columns), norm="ortho").real)
    np.testing.assert_allclose(look, expected.clip(-1.0, 1.0), atol=0.005)
    (record,) = records(tmp_path / "out")
    assert record["psnr"] is None and 0.0 < record["residual"] < 0.1 and (folder / "drawing.png").exists()


def test_a_solver_without_a_measurement_needs_no_image(sample, tmp_path):
    sample(*CHEAP, "solver=unconditional", "num_samples=3", "batch_size=2", "output_dir=out")
    rows = records(tmp_path / "out")
    assert [r["sample"] for r in rows] == [0, 1, 2] and all(r["residual"] is None and r["psnr"] is None for r in rows)
    written = {path.name for path in (tmp_path / "out/images/unconditional").iterdir()}
    assert written == {*(f"restoration-{k}.png" for k in range(3)), "mean.png", "std.png"}


def test_a_result_depends_on_image_and_seed_only(sample, tmp_path):
    """Alone, in a batch, and in another order: the same record and the same image, bit by bit with images_per_call=1."""
    shared = ["grid.steps=25", "operator=inpaint_random", "images_per_call=1"]
    listed = f"input=[{','.join(map(str, FACES[::-1]))}]"
    sample(*shared, f"input={FACES[0]}", "output_dir=alone")
    sample(*shared, listed, "output_dir=batch", "batch_size=4")
    alone = records(tmp_path / "alone")[0]
    batch = next(r for r in records(tmp_path / "batch") if r["id"] == alone["id"])
    costs = ("seconds", "peak_memory_mib")
    assert {key: batch[key] for key in batch if key not in costs} == {key: alone[key] for key in alone if key not in costs}
    one, other = (pixels(tmp_path / run / "images" / alone["id"] / "restoration-0.png") for run in ("alone", "batch"))
    assert np.array_equal(one, other)


def test_the_ffhq_prior_is_downloaded_checked_and_sampled_with_its_learned_variance(sample, tmp_path):
    """prior=ffhq256 on a narrow copy of its network, its checkpoint fetched from a server by url and SHA-256."""
    torch.manual_seed(0)
    network = UNet(num_channels=32)
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    served = tmp_path / "served"
    served.mkdir()
    torch.save(network.state_dict(), served / "any.pt")
    sha256 = hashlib.sha256((served / "any.pt").read_bytes()).hexdigest()
    handler = partial(SimpleHTTPRequestHandler, directory=str(served))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"prior.checkpoint.url=http://127.0.0.1:{server.server_address[1]}/any.pt"
        small = ["prior=ffhq256", "prior.network.num_channels=32", "prior.size=[64,64]", "grid.steps=3", f"input={FACES[0]}"]
        wrong = sample(*small, url, f"prior.checkpoint.sha256={'0' * 64}", "output_dir=out", code=2)
        assert "is not the file expected" in wrong.stderr and not list((tmp_path / "torch").rglob("*.pt"))
        sample(*small, url, f"prior.checkpoint.sha256={sha256}", "output_dir=out")
        server.shutdown()
    assert (tmp_path / "torch/hub/checkpoints/ffhq_10m.pt").read_bytes() == (served / "any.pt").read_bytes()
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["config"]
    assert config["sampler"]["_target_"].endswith("LearnedRange") and records(tmp_path / "out")[0]["psnr"] is not None


def test_a_sweep_gives_each_job_a_folder_and_ends_with_a_leaderboard(sample, tmp_path):
    done = sample("-m", *CHEAP, "solver=sdedit", "solver.t_star=250,500", "output_dir=sweep", f"input={FACES[0]}")
    runs = [records(tmp_path / "sweep" / str(job))[0] for job in (0, 1)]
    assert runs[0]["nfe_forward"] < runs[1]["nfe_forward"]
    board = (tmp_path / "sweep" / "leaderboard.csv").read_text().splitlines()
    assert len(board) == 3 and "solver.t_star" in board[0] and f"{max(run['psnr'] for run in runs):.2f}" in done.stdout


def test_two_finished_runs_are_compared_and_not_called_unfinished(sample, tmp_path):
    for seed in (0, 1):
        sample(*CHEAP, f"input={FACES[0]}", f"seed={seed}", f"output_dir=s{seed}")
    done = Run(tmp_path, "compare=[s0,s1]").wait()
    assert done.returncode == 0, done.stderr
    assert "images in common: 1" in done.stdout and "not finished" not in done.stdout


def test_an_image_that_diverges_does_not_stop_the_others(sample, tmp_path):
    """The record of the bright image says at which step it failed; the dark image is restored; the exit code is 1."""
    for name, grey in (("bright", 255), ("dark", 20)):
        Image.new("RGB", (16, 16), (grey,) * 3).save(tmp_path / f"{name}.png")
    broken = ["prior=custom", "prior.network._target_=broken_networks.NaNForBright", "prior.checkpoint=null", "prior.size=[16,16]"]
    network = ["+prior.network.above=0.4", "+prior.network.below_t=150"]
    steps = ["solver=sdedit", "solver.t_star=200", "grid.steps=1000", "operator=identity", "prior.clip=false"]
    done = sample(*broken, *network, *steps, "input=[bright.png,dark.png]", "output_dir=out", code=1)
    bright, dark = records(tmp_path / "out")
    assert bright["error"].startswith("not finite after step 51 of 200, from t = 149") and bright["psnr"] is None
    assert dark["error"] is None and dark["psnr"] is not None
    assert not (tmp_path / "out/images/bright/restoration-0.png").exists() and (tmp_path / "out/images/dark/restoration-0.png").exists()
    assert done.stderr.strip().splitlines()[-1].startswith("error: 1 of 2 failed; bright: not finite")


def test_ctrl_c_keeps_finished_images_and_summarises_them(tmp_path):
    """Interrupted after the first image: its record and images are complete, no temporary file remains, the exit code is 130."""
    for k in range(40):
        Image.open(FACES[k % len(FACES)]).save(tmp_path / f"face-{k:02d}.png")
    overrides = [*TINY, "prior.size=[64,64]", "grid.steps=1000", "batch_size=1", "input=face-*.png", "output_dir=out", "metrics.lpips=null"]
    process = Run(tmp_path, *overrides, script="sample.py")
    assert process.wait_until((tmp_path / "out" / "records.jsonl").exists)
    process.send(signal.SIGINT)
    done = process.wait()
    assert done.returncode == 130, done.stderr
    rows = records(tmp_path / "out")
    assert 1 <= len(rows) < 40
    for row in rows:
        assert Image.open(tmp_path / "out/images" / row["id"] / "restoration-0.png").size == (64, 64)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["records"] == summary["images"] == len(rows) and not summary["complete"]
    assert (tmp_path / "out" / "figure.png").exists() and f"{summary['statistics']['single']['psnr']['mean']:.2f}" in done.stdout
    assert done.stderr.strip().splitlines()[-1] == f"error: stopped by SIGINT; {len(rows)} of 40 restorations are finished"
    assert not list((tmp_path / "out").rglob(".*")) and "Traceback" not in done.stderr


def test_a_full_disk_leaves_no_partial_file(sample, tmp_path):
    """Files cannot grow beyond 6 kB here, as on a full disk: one line, exit code 2, no partial file."""

    done = sample(*TINY, "prior.size=[64,64]", "grid.steps=4", f"input={FACES[0]}", "output_dir=out", code=2, before=no_room)
    assert done.stderr.strip().splitlines()[-1].startswith("error: ") and "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    written = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert all(p.stat().st_size < 6000 for p in written) and not [p for p in written if p.name.startswith(".") or p.suffix == ".png"]
    assert not (tmp_path / "out" / "records.jsonl").exists()


def test_records_are_overwritten_only_on_request(sample, tmp_path):
    sample(*CHEAP, f"input={FACES[0]}", "output_dir=out")
    before = (tmp_path / "out" / "records.jsonl").read_bytes()
    done = sample(*CHEAP, f"input={FACES[0]}", "output_dir=out", "seed=1", code=2)
    assert "already holds the records" in done.stderr and (tmp_path / "out" / "records.jsonl").read_bytes() == before
    sample(*CHEAP, f"input={FACES[0]}", "output_dir=out", "seed=1", "overwrite=true")
    assert records(tmp_path / "out")[0]["seed"] == 1


def test_a_trajectory_is_a_strip_an_animation_and_in_the_report(sample, tmp_path):
    """Three of four steps; the last x̂0 of diffpir is its restoration. The images and records are those of a run without it."""
    for name, *kept in (("out", "trajectory=3"), ("without",)):
        sample(f"output_dir={name}", "num_samples=2", "solver=diffpir", *CHEAP, *kept)
    folder = tmp_path / "out" / "images" / "face-1"
    with Image.open(folder / "film-1.webp") as film:
        assert film.n_frames == 3
        frames = []
        for number in range(3):
            film.seek(number)
            frames.append(np.asarray(film.convert("RGB")))
    restored = np.asarray(Image.open(folder / "restoration-1.png"))
    np.testing.assert_array_equal(frames[2], restored.repeat(12, 0).repeat(12, 1))
    assert (frames[0] != frames[1]).any() and (frames[1] != frames[2]).any()
    assert Image.open(folder / "film-0.png").width >= 3 * 192
    assert 'src="images/face-1/film-0.webp"' in (tmp_path / "out" / "report.html").read_text()
    assert [record["hashes"] for record in records(tmp_path / "out")] == [record["hashes"] for record in records(tmp_path / "without")]
    assert not list((tmp_path / "without" / "images" / "face-1").glob("film*"))
