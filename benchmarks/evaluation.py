"""What an evaluation costs in addition to its sampling, and how much memory it uses: python benchmarks/evaluation.py --help.

Cost: the scores (PSNR, SSIM, LPIPS) and the files of a batch, timed against the bare solver on the same batch, in turns in
one process. Files are written while the next batch is sampled; here they are timed as if they were not, so the share is
an upper bound.

Memory: two runs of evaluate.py with the identity operator and two steps of DPS on generated images, of few and of many images,
each in a process of its own; the peak resident memory of each, with the report and the leaderboard at its end.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from PIL import Image
from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.scale.commands import environment  # noqa: E402
from diffusion_priors.diffusion.denoiser import Denoiser  # noqa: E402
from diffusion_priors.diffusion.grids import Linspace  # noqa: E402
from diffusion_priors.diffusion.priors.folder import from_folder  # noqa: E402
from diffusion_priors.diffusion.transitions import FixedSmall  # noqa: E402
from diffusion_priors.evaluation.metrics.lpips import LPIPS, TrunkMissing  # noqa: E402
from diffusion_priors.evaluation.metrics.per_image import Metrics  # noqa: E402
from diffusion_priors.evaluation.restoration.batches import Batch  # noqa: E402
from diffusion_priors.evaluation.restoration.folder import RestorationFolder  # noqa: E402
from diffusion_priors.evaluation.restoration.module import RestorationModule  # noqa: E402
from diffusion_priors.operators.inpainting import InpaintBox  # noqa: E402
from diffusion_priors.operators.noise_models import Gaussian  # noqa: E402
from diffusion_priors.solvers.base import Problem  # noqa: E402
from diffusion_priors.solvers.dps import DPS  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=25, help="of DPS; its share is scaled to --full-steps")
    parser.add_argument("--full-steps", type=int, default=250, help="what a real run takes")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--trunk", default=None, help="LPIPS trunk weights; without, LPIPS is left out where it cannot be had")
    parser.add_argument("--few", type=int, default=1000, help="images of the small run for memory; 0 leaves memory out")
    parser.add_argument("--many", type=int, default=10_000)
    chosen = parser.parse_args()
    cost(chosen)
    if chosen.few:
        memory(chosen.few, chosen.many)


def cost(chosen: argparse.Namespace) -> None:
    """Median seconds of a batch's sampling, scores and files."""
    prior = from_folder(str(ROOT / "diffusion" / "weights" / "faces64"))
    prior.network.to(memory_format=torch.channels_last)
    lpips = LPIPS(trunk=chosen.trunk, download=False)
    metrics = Metrics(lpips)
    try:
        lpips.locate()
    except TrunkMissing as error:
        print(f"without LPIPS: {error}")
    metrics.prepare()
    shape = (prior.channels, *prior.size)
    plan = DPS().plan(Linspace(chosen.steps), prior.image_schedule)
    module = RestorationModule(Denoiser(prior), DPS(), InpaintBox(), Gaussian(), FixedSmall(), plan, metrics, shape)
    size = chosen.batch_size
    truth = torch.rand(size, *shape) * 2.0 - 1.0
    times: dict[str, list[float]] = {"sampling": [], "scores": [], "files": []}
    with tempfile.TemporaryDirectory() as folder:
        output = RestorationFolder(Path(folder), 0)
        for turn in range(chosen.turns):
            batch = Batch(tuple(f"{turn}-{b}" for b in range(size)), (0,) * size, truth, None)
            measurement = module.measure(batch)
            problem = Problem(module.denoiser, measurement, module.sampler, module.sampling_noise(batch), module.like(batch))
            start = perf_counter()
            solution = module.solver.solve(problem, plan)
            times["sampling"].append(perf_counter() - start)
            start = perf_counter()
            module.records(batch, measurement, solution, 0.0)
            times["scores"].append(perf_counter() - start)
            done = module.predict_step(batch)
            start = perf_counter()
            output.add(done, set())
            times["files"].append(perf_counter() - start)
    sampling, scores, files = (median(values) / size for values in times.values())
    full = sampling * chosen.full_steps / chosen.steps
    rows = [[f"DPS, {chosen.full_steps} steps", full, 1.0], ["scores", scores, scores / full], ["files", files, files / full]]
    print(tabulate(rows, headers=["", "seconds an image", "of sampling"], floatfmt=("", ".4f", ".4f"), tablefmt="pipe"))


def memory(few: int, many: int) -> None:
    """Peak memory of a run of `few` images and of one of `many`."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        draw = np.random.default_rng(0)
        (folder / "images").mkdir()
        for number in range(many):
            Image.fromarray(draw.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(folder / "images" / f"{number:06d}.png")
        rows = [[count, *run(folder, count)] for count in (few, many)]
    print(tabulate(rows, headers=["images", "peak MiB", "seconds"], floatfmt=".0f", tablefmt="pipe"))
    print(f"{(rows[1][1] / rows[0][1] - 1.0) * 100.0:+.1f} % for {many / few:.0f} times the images")


def run(folder: Path, count: int) -> tuple[float, float]:
    """(peak MiB, seconds) of a sweep of one job with the first `count` images, by a network that only scales; its leaderboard included."""
    network = ["prior=custom", "prior.network._target_=broken_networks.Shrink", "prior.checkpoint=null", "prior.size=[32,32]"]
    problem = ["operator=identity", "noise_model=none", "solver=dps", "grid.steps=2", "metrics.lpips=null", "trainer=cpu"]
    images = [f"data.root={folder / 'images'}", f"data.limit={count}", "batch_size=16", "trainer.threads=1"]
    line = [sys.executable, str(ROOT / "benchmarks" / "scale" / "peak.py"), "evaluate.py", "-m", *images, *network, *problem]
    start = perf_counter()
    done = subprocess.run([*line, f"output_dir={folder / f'run-{count}'}"], check=True, capture_output=True, text=True, env=environment())
    return float(done.stderr.split()[-1]), perf_counter() - start


if __name__ == "__main__":
    main()
