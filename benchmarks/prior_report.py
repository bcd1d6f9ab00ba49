"""Compare priors: denoising PSNR on sets of images, a sheet of samples, and their nearest training images.

    python benchmarks/prior_report.py --prior old.pt --prior folder --images faces/val --images sfhq \\
        --samples 64 --training faces/train --out report

A prior is a folder that train.py exported, or a .pt file. The card of --like, by default the bundled prior, describes .pt files.
All priors are measured in this one run, on the same images with the same noise.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from diffusion_priors.diffusion.checkpoints import load_strictly
from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.grids import Linspace
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.folder import from_folder
from diffusion_priors.diffusion.transitions import FixedSmall
from diffusion_priors.evaluation.metrics.per_image import Metrics
from diffusion_priors.evaluation.restoration.batches import Batch
from diffusion_priors.evaluation.restoration.module import RestorationModule
from diffusion_priors.images.find import find_images
from diffusion_priors.images.fit import Crop
from diffusion_priors.images.io import read_image, to_image
from diffusion_priors.operators.identity import Identity
from diffusion_priors.operators.noise_models import NoNoise
from diffusion_priors.runs.files import write_whole
from diffusion_priors.runs.weights import read_state_dict
from diffusion_priors.solvers.unconditional import Unconditional
from diffusion_priors.training.image_store import ImageStore, store_images
from diffusion_priors.training.validation import denoising_psnr, sheet

LEVELS = (100, 300, 500, 700, 900)
BUNDLED = Path(__file__).resolve().parent.parent / "diffusion" / "weights" / "faces64"


def main() -> None:
    wanted = arguments()
    priors = {path: load(path, wanted.like) for path in wanted.prior}
    rows = [[path, folder, *denoising_scores(prior, folder, wanted.count)] for folder in wanted.images for path, prior in priors.items()]
    rows += [[path, "ms a forward pass", milliseconds(prior), *[""] * (len(LEVELS) - 1)] for path, prior in priors.items()]
    print(tabulate(rows, headers=["prior", "images", *(f"t={t}" for t in LEVELS)], floatfmt=".2f"))
    if wanted.samples:
        path, prior = list(priors.items())[-1]
        started = perf_counter()
        if wanted.fast:
            prior.network.to(memory_format=torch.channels_last).compile()
        drawn = samples(prior, wanted.samples, wanted.steps, torch.bfloat16 if wanted.fast else None)
        print(f"{wanted.samples} samples of {path}, {wanted.steps} steps: {perf_counter() - started:.0f} s")
        save(wanted.out / "samples.png", sheet([to_image(x) for x in drawn]))
        if wanted.training:
            store = store_images(wanted.training, prior.channels, prior.size, Crop(), wanted.out / "cache", enlarge=True)
            save(wanted.out / "neighbours.png", neighbours(drawn[:8], store))


def load(path: str, like: Path) -> Prior:
    if Path(path).is_dir():
        return from_folder(path)
    prior = from_folder(str(like))
    load_strictly(prior.network, read_state_dict(Path(path)), Path(path))
    return prior


def denoising_scores(prior: Prior, folder: str, count: int) -> list[float]:
    """Denoising PSNR (dB) at LEVELS on the first `count` images."""
    found = find_images(folder)
    named = list(zip(found.ids, found.paths, strict=True))[:count]
    images = [(name, read_image(path, prior.channels, prior.size, Crop())) for name, path in named]
    return denoising_psnr(Denoiser(prior), [prior.image_schedule.table[t] for t in LEVELS], images)


@torch.no_grad()
def milliseconds(prior: Prior, calls: int = 30) -> float:
    """Median time of one forward pass of one image."""
    network = prior.network.eval().to(memory_format=torch.channels_last)
    x, t = torch.zeros(1, prior.channels, *prior.size), torch.tensor([500])
    times = []
    for _ in range(calls):
        started = perf_counter()
        network(x, t)
        times.append(1000 * (perf_counter() - started))
    return float(np.median(times))


def samples(prior: Prior, count: int, steps: int, autocast: torch.dtype | None, batch_size: int = 16) -> torch.Tensor:
    """(count, C, H, W) unconditional samples, seed 0."""
    plan = Unconditional().plan(Linspace(steps), prior.image_schedule)
    shape = (prior.channels, *prior.size)
    module = RestorationModule(Denoiser(prior, autocast), Unconditional(), Identity(), NoNoise(), FixedSmall(), plan, Metrics(), shape)
    starts = range(0, count, batch_size)
    batches = [tuple(range(start, min(start + batch_size, count))) for start in starts]
    return torch.cat([module.predict_step(Batch(("unconditional",) * len(batch), batch, None, None)).x0 for batch in batches])


def neighbours(drawn: torch.Tensor, store: ImageStore, nearest: int = 3):
    """One row per sample: the sample and its nearest training images, or their mirror images, by Euclidean distance."""
    flat = store.pixels.reshape(len(store), -1).astype(np.float32) / 127.5 - 1.0
    tiles = []
    for number, sample in enumerate(drawn.clamp(-1, 1)):
        both = [np.linalg.norm(flat - x.numpy().reshape(-1), axis=1) for x in (sample, sample.flip(-1))]
        order = np.argsort(np.minimum(*both))[:nearest]
        tiles.append(to_image(sample))
        for index in order:
            image = store.image(index)
            tiles.append(to_image(image.flip(-1) if both[1][index] < both[0][index] else image))
            away = min(both[0][index], both[1][index]) / flat.shape[1] ** 0.5
            print(f"sample {number}: {store.ids[index]} is {away:.3f} away (root mean square)")
    return sheet(tiles, columns=2 * (nearest + 1))


def save(path: Path, image) -> None:
    write_whole(path, lambda stream: image.save(stream, "PNG"))
    print(path)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", action="append", required=True, help="a prior's folder or .pt file; the last one is sampled")
    parser.add_argument("--like", type=Path, default=BUNDLED, help="the folder whose card describes .pt files")
    parser.add_argument("--images", action="append", default=[], help="a folder to denoise")
    parser.add_argument("--count", type=int, default=48, help="images of each folder")
    parser.add_argument("--samples", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--fast", action="store_true", help="draw the samples in bf16, compiled")
    parser.add_argument("--training", help="the training images, for the nearest neighbours of 8 samples")
    parser.add_argument("--out", type=Path, default=Path("outputs/prior_report"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
