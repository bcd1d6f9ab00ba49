"""Runs the commands of docs/, as they are written, with tiny priors and little work.

Other tests run the remaining pages: tests/cluster has docs/cluster.md, tests/test_evaluate_exact.py has docs/exact_posterior.md,
tests/api has docs/python.md.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from documentation import ROOT, commands, draw_faces, fenced, inline_commands, run, run_all, write_scans, write_user_package
from PIL import Image

from diffusion_priors.operators.tomography import Tomography

pytestmark = [pytest.mark.script, pytest.mark.slow]

SHRUNK = [
    *("prior=custom", "prior.network._target_=broken_networks.Shrink", "prior.checkpoint=null", "prior.size=[32,32]"),
    *("metrics.lpips=null", "trainer.accelerator=cpu", "grid.steps=4"),
]
"""A network of one parameter, on images of 32 x 32, in four steps."""

LITTLE_TRAINING = [
    *("steps=2", "batch_size=4", "validation.denoise=2", "validation.samples=0", "validation.restore=0", "data.cache=cache"),
    *("trainer.accelerator=cpu", "trainer.precision=32", "trainer.compile=false", "checkpoint_every=1", "data.holdout=1"),
]
TINY_NETWORK = [
    *("network.num_channels=8", "network.channel_mult=[1,2]", "network.attention_resolutions=[]", "network.num_head_channels=8"),
    *("network.image_size=32", "prior.size=[32,32]"),
]


def extra(command: str) -> list[str]:
    """What makes an evaluation short."""
    if "benchmarks/batching.py" in command:
        return ["--steps", "2"]
    if " compare=" in command or " samples=" in command:
        return ["metrics.lpips=null"]
    return [*SHRUNK, *(["hydra.sweeper.n_trials=2"] if "n_trials" in command else [])]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw_faces(tmp_path, 32, "FOLDER", "RESTORED")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    write_user_package(tmp_path)
    return tmp_path


def without_limit(command: str) -> str:
    """The command, without its number of images and its precision."""
    return " ".join(word for word in command.split() if not word.startswith(("data.limit=", "trainer=")))


def files(folder: Path) -> set[str]:
    """Every file below a folder, and the names alone."""
    found = [path for path in folder.rglob("*.*") if path.is_file()]
    return {path.relative_to(folder).as_posix() for path in found} | {path.name for path in found}


@pytest.mark.parametrize(
    ("page", "least", "expected"),
    [
        ("docs/evaluation.md", 10, {"MEASUREMENTS/measurements.json"}),
        ("docs/operators.md", 6, {"drawing.png", "first-look.png"}),
        ("docs/sweeps.md", 10, {"SWEEP/leaderboard.html", "table1_denoising.tex", "table2_inpainting.tex", "table3_deconvolution.tex"}),
    ],
)
def test_every_command_of_a_page_runs(page, least, expected, folder):
    write_scans(folder, 32)
    draw_faces(folder, 32, "grey")
    np.save(folder / "sinogram.npy", np.zeros((6, 46)))
    for name in ("RUN1", "RUN2"):
        run("python evaluate.py data.root=FOLDER", folder, [f"output_dir={name}", f"seed={name[-1]}", *SHRUNK])
    assert len(commands(page)) >= least
    run_all(commands(page), folder, extra)
    assert expected <= files(folder)


def test_the_command_and_the_code_of_the_page_about_large_images_run(folder):
    """The command in tiles of 32 x 32. The code in one step, on an image little larger than the prior's."""
    run_all(commands("docs/large_images.md"), folder, lambda command: [*SHRUNK, "output_dir=large"])
    with Image.open(next((folder / "large" / "images").rglob("restoration*.png"))) as restored:
        assert restored.size == (300, 200)
    (code,) = fenced("docs/large_images.md", "python")
    known: dict = {}
    exec(code.replace("(200, 300)", "(64, 80)").replace("steps=20", "steps=1"), known)
    assert known["result"].samples.shape == (1, 1, 3, 64, 80)


def test_the_code_of_the_page_about_operators_makes_what_its_commands_read(folder, monkeypatch):
    """The sinogram of scikit-image becomes y of A: that of the image in [-1, 1]. Angles are in the file; grey images have one channel."""
    radon = pytest.importorskip("skimage.transform").radon
    write_scans(folder, 64)
    monkeypatch.chdir(folder)
    image, angles = np.random.default_rng(0).uniform(size=(64, 64)), np.load("angles.npy")
    np.save("radon.npy", radon(image, angles, circle=False).T)
    for block in fenced("docs/operators.md", "python"):
        exec(block, {})
    assert {Image.open(path).mode for path in Path("grey").iterdir()} == {"L"} and len(list(Path("grey").iterdir())) == 4
    x0 = torch.from_numpy(2.0 * image - 1.0)[None, None]
    expected = Tomography(path="angles.npy").draw(x0, [None])(x0)[0, 0]
    np.testing.assert_allclose(np.load("sinogram.npy"), expected, atol=1e-5)


def test_the_commands_of_the_results_run(folder):
    """The three tables are commands of docs/sweeps.md with another number of images: the test above runs them."""
    tables, found = {command for command in commands("docs/sweeps.md") if "table" in command}, commands("docs/results.md")
    others = [command for command in found if without_limit(command) not in tables]
    assert len(others) == len(found) - 3 >= 5
    run_all(others, folder, extra)
    assert "figure2_unconditional.png" in files(folder)


NOT_TRAINED = {
    "ffhq_10m.pt": "the checkpoint has to be downloaded by hand",
    "prior=weights.pt": "the same option as prior=guided_diffusion, which tests/test_train.py fine-tunes",
}


def train_extra(command: str) -> list[str]:
    """What makes a training run short; a prior that exists brings its own network."""
    if "prior_report" in command:
        return ["--samples", "1", "--steps", "2", "--count", "2", "--images", "FOLDER"]
    new = "prior=" not in command.replace("prior=outputs", "")
    ranks = [] if "ddp" not in command else ["trainer.devices=2", "output_dir=outputs/ranks"]
    tiny = TINY_NETWORK if "prior=" not in command else []
    return [*LITTLE_TRAINING, *tiny, *ranks, *(["overwrite=true"] if new else [])]


def test_every_command_of_the_training_page_runs(folder):
    """The checkpoint of step 10000 is that of step 2 here, and two devices share the batch instead of four."""
    found = commands("docs/training.md")
    left_out = [command for command in found if any(name in command for name in NOT_TRAINED)]
    assert len(left_out) == len(NOT_TRAINED)
    renamed = [command.replace("step-00010000", "step-00000002").replace("node 4", "node 2") for command in found]
    chosen = [new for command, new in zip(found, renamed, strict=True) if command not in left_out]
    for name in ("OLD", "NEW"):
        (folder / name).symlink_to(ROOT / "diffusion" / "weights" / "faces64")
    draw_faces(folder, 64, "FOLDER", "ANOTHER")
    run_all(chosen, folder, train_extra)
    assert (folder / "outputs" / "train" / "prior" / "card.yaml").is_file()
    for prior in ("0", "1"):
        assert files(folder / "report" / prior) >= {"samples.png", "neighbours.png"}


def write_priors(folder: Path) -> None:
    """PIPELINE of diffusers, model.ckpt of DDPM and PRIOR of train.py, of random weights for images of 32 x 32."""
    import diffusers
    import torch
    import yaml
    from ddpm_names import DDPM, in_the_names_of_ddpm
    from safetensors.torch import save_file
    from tiny_prior import tiny_prior

    network = diffusers.UNet2DModel(**DDPM)
    diffusers.DDPMPipeline(network, diffusers.DDPMScheduler()).save_pretrained(folder / "PIPELINE")
    torch.save(in_the_names_of_ddpm(network.state_dict()), folder / "model.ckpt")
    prior = tiny_prior({"image_size": 32, "max_groups": 4, "min_group_channels": 1})
    (folder / "PRIOR").mkdir()
    (folder / "PRIOR" / "card.yaml").write_text(yaml.safe_dump(prior.describe()))
    save_file(prior.network.state_dict(), folder / "PRIOR" / "weights.safetensors")


def test_the_commands_of_the_page_of_priors_run(folder):
    """Those in plain blocks: the others need the hub. The doctor finds that random weights do not denoise."""
    pytest.importorskip("diffusers")
    write_priors(folder)
    (folder / "photo.png").write_bytes((folder / "FOLDER" / "face-1.png").read_bytes())
    assert len(commands("docs/priors.md")) == 6
    for command in commands("docs/priors.md"):
        done = run(command, folder, ["grid.steps=2", "metrics.lpips=null", "trainer.accelerator=cpu"] if "sample.py" in command else [])
        assert done.returncode == (1 if " doctor " in command else 0), f"{command}\n{done.stdout}\n{done.stderr}"
        assert "it does not denoise" in done.stdout or " doctor " not in command
    assert (folder / "EXPORTED" / "model_index.json").is_file()


ONCE = ["--repetitions", "1", "--threads", "1"]
DDRM_AND_DDIM = ["--methods", "ddrm", "--samplers", "ddim", "--sampling-steps", "2"]
SHORT_TIMINGS = {
    "benchmarks/overhead.py": ["--pairs", "1", "--steps", "1", "--priors", "faces64", "--batches", "1", "--solvers", "dps"],
    "benchmarks/evaluation.py": ["--turns", "1", "--steps", "1", "--batch-size", "1", "--few", "0"],
    "benchmarks/memory.py": ["--pairs", "1", "--size", "32", "--channels", "32", "--threads", "1"],
    "benchmarks/peers.py": ["--network", "faces64", *DDRM_AND_DDIM, "--batches", "1", *ONCE],
    "benchmarks/roofline.py": ["--layouts", "channels_last", "--batches", "1", *ONCE],
    "benchmarks/time_to_quality.py": ["--tasks", "box", "--solvers", "ddrm", "--steps", "1", "--threads", "1"],
    "benchmarks/peers_quality.py": ["--methods", "daps", "--tasks", "box", "--count", "1"],
    "benchmarks/sizes.py": ["--sizes", "64", "72", "--count", "2"],
    "benchmarks/scale/processes.py": [
        "--images",
        "FOLDER",
        "--count",
        "4",
        "--batch-size",
        "1",
        "--steps",
        "1",
        "--",
        "metrics.lpips=null",
    ],
    "benchmarks/scale/sweep.py": ["--jobs", "2", "--", "metrics.lpips=null"],
    "benchmarks/scale/leaderboard.py": ["--jobs", "2", "--images", "3"],
    "benchmarks/training.py": ["--steps", "5", "--batches", "1", "--precisions", "32"],
}


def timings() -> list[str]:
    """Every command of a page that runs a benchmark, once."""
    pages = ["README.md", *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md")))]
    return list(dict.fromkeys(command for page in pages for command in inline_commands(page) if "benchmarks/" in command))


def benchmark_of(command: str) -> str:
    return re.search(r"benchmarks/[\w/]+\.py", command)[0]


def test_every_benchmark_of_the_pages_has_short_settings():
    assert {benchmark_of(command) for command in timings()} == set(SHORT_TIMINGS)


@pytest.mark.parametrize("script", SHORT_TIMINGS)
def test_the_benchmarks_of_the_pages_run(script, folder):
    """Commands of one benchmark run in order: later ones read what earlier ones left."""
    run_all([command for command in timings() if benchmark_of(command) == script], folder, lambda command: SHORT_TIMINGS[script])


def test_the_code_of_the_page_about_exact_posteriors_prints_the_share_of_each_solver(folder):
    run_all(
        ["python evaluate.py experiment=exact_posterior"],
        folder,
        lambda command: [
            *("grid.steps=2", "hydra.sweeper.params.exact_problem=two_modes", "hydra.sweeper.params.solver='dps,sdedit'"),
            "output_dir='outputs/evaluate/experiment=exact_posterior'",
        ],
    )
    (code,) = fenced("docs/exact_posterior.md", "python")
    (folder / "share.py").write_text(code)
    done = run("python share.py", folder)
    assert done.returncode == 0, done.stderr
    shares = [line.rsplit(" ", 2) for line in done.stdout.splitlines()]
    assert len(shares) == 2
    assert all(exact == "0.19" and 0.0 <= float(share) <= 1.0 for _, exact, share in shares)
