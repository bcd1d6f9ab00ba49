"""Compare priors: denoising PSNR on sets of images, KID of samples, sheets of samples, and their nearest training images.

    python benchmarks/prior_report.py --prior old.pt --prior folder --images faces/val --images sfhq --samples 2000 --fast \\
        --steps 20 --sampling sampler=dpmpp_2m grid=log_snr --kid faces/val --kid faces/train --training faces/train --out report

A prior is a folder that train.py exported, or a .pt file. The card of --like, by default the bundled prior, describes .pt files.
All priors are measured in this one run, on the same images with the same noise. KID compares samples with the images of
a folder by the features of AlexNet, which needs no download where LPIPS is installed; metrics=fid has those of Inception.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.configured import configured
from diffusion_priors.diffusion.checkpoints import load_strictly
from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.folder import from_folder
from diffusion_priors.evaluation.metrics.distribution import Distribution
from diffusion_priors.evaluation.metrics.lpips import LPIPS
from diffusion_priors.evaluation.metrics.per_image import Metrics
from diffusion_priors.evaluation.restoration.batches import Batch
from diffusion_priors.evaluation.restoration.module import RestorationModule
from diffusion_priors.images.find import find_images
from diffusion_priors.images.fit import Crop
from diffusion_priors.images.io import read_image, save_image, to_image
from diffusion_priors.runs.files import write_whole
from diffusion_priors.runs.weights import read_state_dict
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
    features = AlexNet(wanted.trunk) if wanted.kid else None
    for number, (path, prior) in enumerate(priors.items()):
        if wanted.samples:
            report_samples(prior, path, wanted.out / str(number), features, wanted)


def report_samples(prior: Prior, path: str, out: Path, features: AlexNet | None, wanted: argparse.Namespace) -> None:
    """The samples of one prior: their time, sheet of the first 64, KID and nearest training images, in the folder `out`."""
    started = perf_counter()
    chosen = [f"grid.steps={wanted.steps}", *wanted.sampling]
    drawn = samples(prior, wanted.samples, chosen, torch.bfloat16 if wanted.fast else None)
    print(f"{wanted.samples} samples of {path} with {' '.join(chosen)}: {perf_counter() - started:.0f} s", flush=True)
    save(out / "samples.png", sheet([to_image(x) for x in drawn[:64]]))
    made = save_all(out / "samples", drawn)
    for folder in wanted.kid:
        store = store_images(folder, prior.channels, prior.size, Crop(), wanted.out / "cache", enlarge=True)
        real = save_all(out / "real", (store.image(index) for index in range(len(store))))
        least = min(len(real), len(made))
        distance = Distribution(features, least=least, kid_subsets=100, kid_subset_size=min(least, 500))
        found = distance(real, made)
        scale = f"{1000 * found['kid']:.3f} ± {1000 * found['kid_std']:.3f}"
        print(f"{path}: KID times 1000 of {len(made)} samples and the {len(real)} images of {folder}: {scale}", flush=True)
    if wanted.training:
        store = store_images(wanted.training, prior.channels, prior.size, Crop(), wanted.out / "cache", enlarge=True)
        save(out / "neighbours.png", neighbours(drawn[: wanted.neighbours], store))


def load(path: str, like: Path) -> Prior:
    """The prior, prepared as a run prepares it."""
    folder = Path(path).is_dir()
    prior = from_folder(path if folder else str(like))
    if not folder:
        load_strictly(prior.network, read_state_dict(Path(path)), Path(path))
    prior.network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return prior


def denoising_scores(prior: Prior, folder: str, count: int) -> list[float]:
    """Denoising PSNR (dB) at LEVELS on the first `count` images."""
    found = find_images(folder)
    named = list(zip(found.ids, found.paths, strict=True))[:count]
    images = [(name, read_image(path, prior.channels, prior.size, Crop())) for name, path in named]
    return denoising_psnr(Denoiser(prior), [prior.image_schedule.table[t] for t in LEVELS], images)


class AlexNet(torch.nn.Module):
    """Images, uint8 (B, 3, H, W) → (B, 256): the last convolution of LPIPS's trunk, averaged over 224 x 224 pixels."""

    def __init__(self, trunk: str | None) -> None:
        super().__init__()
        lpips = LPIPS(trunk=trunk)
        lpips.prepare()
        self.distance = lpips.distance

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        enlarged = torch.nn.functional.interpolate(images.float() / 127.5 - 1.0, (224, 224), mode="bilinear", antialias=True)
        return self.distance.net(self.distance.scaling_layer(enlarged))[-1].mean((2, 3))


@torch.no_grad()
def milliseconds(prior: Prior, calls: int = 30) -> float:
    """Median time of one forward pass of one image."""
    x, t = torch.zeros(1, prior.channels, *prior.size), torch.tensor([500])
    times = []
    for _ in range(calls):
        started = perf_counter()
        prior.network(x, t)
        times.append(1000 * (perf_counter() - started))
    return float(np.median(times))


def samples(prior: Prior, count: int, chosen: Sequence[str], autocast: torch.dtype | None, batch_size: int = 8) -> torch.Tensor:
    """(count, C, H, W) unconditional samples, seed 0, with the chosen sampler and grid."""
    method = configured("solver=unconditional", "operator=identity", "noise_model=none", *chosen)
    plan, shape = method.solver.plan(method.grid, prior.image_schedule), (prior.channels, *prior.size)
    parts = (method.solver, method.operator, method.noise_model, method.sampler)
    module = RestorationModule(Denoiser(prior, autocast), *parts, plan, Metrics(), shape)
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


def save_all(folder: Path, images: Iterable[torch.Tensor]) -> list[Path]:
    paths = []
    for number, x in enumerate(images):
        paths.append(folder / f"{number:05}.png")
        save_image(paths[-1], x)
    return paths


def save(path: Path, image) -> None:
    write_whole(path, lambda stream: image.save(stream, "PNG"))
    print(path)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", action="append", required=True, help="a prior's folder or .pt file")
    parser.add_argument("--like", type=Path, default=BUNDLED, help="the folder whose card describes .pt files")
    parser.add_argument("--images", action="append", default=[], help="a folder to denoise")
    parser.add_argument("--count", type=int, default=48, help="images of each folder")
    parser.add_argument("--samples", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--sampling", nargs="+", default=["sampler=ddpm"], help="how the samples are drawn, in sample.py's words")
    parser.add_argument("--fast", action="store_true", help="draw the samples in bf16")
    parser.add_argument("--kid", action="append", default=[], help="a folder to compare the samples with")
    parser.add_argument("--trunk", help="AlexNet's weights, where they are not in torch's cache")
    parser.add_argument("--training", help="the training images, for the nearest neighbours of samples")
    parser.add_argument("--neighbours", type=int, default=16, help="samples whose nearest neighbours are drawn")
    parser.add_argument("--out", type=Path, default=Path("outputs/prior_report"))
    wanted = parser.parse_args()
    if wanted.kid and wanted.samples < 2:
        parser.error(f"KID needs at least two samples, got {wanted.samples}; set --samples, as --samples 2000")
    return wanted


if __name__ == "__main__":
    main()
