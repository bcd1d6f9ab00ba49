"""How much the size of a batch changes results, and what it costs that it does not: python benchmarks/batching.py --help.

Every solver restores the four example faces one at a time and as one batch of four, with the same draws. What differs is
rounding, which the steps of a run amplify. The largest difference of a pixel, on the scale of 0 to 255, and the
largest difference of PSNR are printed, and the seconds of an image alone and in the batch: `images_per_call=1` computes
each image alone, whatever the batch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch
from tabulate import tabulate
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.configured import ROOT, SOLVERS, configured, faces64
from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.image_random import ImageRandom, image_generator
from diffusion_priors.evaluation.metrics.per_image import psnr
from diffusion_priors.images.find import find_images
from diffusion_priors.images.fit import Crop
from diffusion_priors.images.io import read_image
from diffusion_priors.operators.measurement import Measurement
from diffusion_priors.solvers.base import Problem

Restore = Callable[[list[int]], Tensor]
"""Numbers of images → their restorations, in one batch."""

HEADERS = ["solver", "precision", "largest difference (of 255)", "of PSNR (dB)", "s alone", "s in the batch", "cost"]


def restorer(name: str, operator: str, steps: int, dtype: torch.dtype) -> tuple[Restore, Tensor]:
    """A configured solver on the example faces, and these faces, (4, 3, 64, 64)."""
    method = configured(f"solver={name}", f"operator={operator}", f"grid.steps={steps}")
    prior = faces64()
    prior.network.to(dtype, memory_format=torch.channels_last)
    paths = find_images(str(ROOT / "examples" / "faces" / "*.png")).paths
    truth = torch.stack([read_image(path, 3, prior.size, Crop()) for path in paths]).to(dtype)
    plan, denoiser = method.solver.plan(method.grid, prior.image_schedule), Denoiser(prior)

    def restore(rows: list[int]) -> Tensor:
        generators = [image_generator(0, row, "measurement") for row in rows]
        drawn = method.operator.draw(truth[rows], generators)
        measurement = Measurement.of(drawn, method.noise_model, truth[rows], generators)
        rng = ImageRandom([image_generator(0, row, "sampling") for row in rows])
        return method.solver.solve(Problem(denoiser, measurement, method.sampler, rng, torch.zeros_like(truth[rows])), plan).x0

    return restore, truth


def compare(name: str, operator: str, steps: int, dtype: torch.dtype) -> list[str]:
    """A row of the table."""
    restore, truth = restorer(name, operator, steps, dtype)
    rows = list(range(len(truth)))
    started = perf_counter()
    alone = torch.cat([restore([row]) for row in rows])
    between = perf_counter()
    together = restore(rows)
    seconds = [(between - started) / len(rows), (perf_counter() - between) / len(rows)]
    clamped = [(x.clamp(-1.0, 1.0) + 1.0) / 2.0 for x in (alone, together, truth)]
    pixels = 255.0 * (clamped[0] - clamped[1]).abs().max().item()
    scores = (psnr(clamped[0].float(), clamped[2].float()) - psnr(clamped[1].float(), clamped[2].float())).abs().max().item()
    times = [*(f"{value:.1f}" for value in seconds), f"{seconds[0] / seconds[1]:.2f}"]
    return [name, str(dtype).removeprefix("torch."), f"{pixels:.2g}", f"{scores:.2g}", *times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="steps of a run (default 100)")
    parser.add_argument("--operator", default="inpaint_box")
    parser.add_argument("--solvers", nargs="+", choices=SOLVERS, default=SOLVERS)
    parser.add_argument("--double", action="store_true", help="compute in float64")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    table = []
    for name in chosen.solvers:
        table.append(compare(name, chosen.operator, chosen.steps, torch.float64 if chosen.double else torch.float32))
        print(*table[-1], file=sys.stderr, flush=True)
    print(tabulate(table, headers=HEADERS, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
