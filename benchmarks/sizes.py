"""Denoising of images larger than the prior's: the network on the whole image against tiles of its own size.

    python benchmarks/sizes.py --images FOLDER

Each image is brought to each size, noise is added at several σ/α, and one step denoises it: PSNR in dB, the mean of the images.
The last row of a size is the mean difference, whole − tiles, with its standard error over the images.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import diffusion_priors as dp
from diffusion_priors.diffusion.tiles import Overlapping
from diffusion_priors.images.find import find_images
from diffusion_priors.images.fit import Crop
from diffusion_priors.images.io import read_image

RATIOS = (0.1, 0.3, 1.0, 3.0, 10.0)


def main() -> None:
    wanted = arguments()
    prior = dp.load_prior(wanted.prior)
    rows = []
    for side in wanted.sizes:
        images = read(wanted.images, prior, side, wanted.count)
        whole = denoised(prior, images)
        rows.append([side, "whole image", *decibels(whole)])
        if (side, side) != tuple(prior.size):
            tiles = denoised(Overlapping((side, side))(prior), images)
            rows += [[side, "tiles", *decibels(tiles)], [side, "difference", *differences(whole - tiles)]]
    print(tabulate(rows, headers=["size", "network sees", *(f"σ/α={ratio:g}" for ratio in RATIOS)], disable_numparse=True))


def decibels(values: Tensor) -> list[str]:
    """Of (ratios, images), the means over the images."""
    return [f"{value:.2f}" for value in values.mean(1).tolist()]


def differences(values: Tensor) -> list[str]:
    """The means, with their standard errors."""
    errors = (values.std(1) / values.shape[1] ** 0.5).tolist()
    return [f"{mean:+.2f} ± {error:.2f}" for mean, error in zip(values.mean(1).tolist(), errors, strict=True)]


def read(folder: str, prior: dp.Prior, side: int, count: int) -> dict[str, Tensor]:
    """Id → image (C, side, side) in [-1, 1]."""
    found = find_images(folder)
    named = list(zip(found.ids, found.paths, strict=True))[:count]
    return {name: read_image(path, prior.channels, (side, side), Crop()) for name, path in named}


@torch.no_grad()
def denoised(prior: dp.Prior, images: dict[str, Tensor]) -> Tensor:
    """PSNR in dB of x̂0 in [-1, 1]: (ratios, images). The noise of an image is the same in every row of its size."""
    denoiser, found = dp.Denoiser(prior), []
    for ratio in RATIOS:
        level = prior.image_schedule.at(ratio)
        for name, x0 in images.items():
            eps = torch.from_numpy(dp.image_generator(0, name, "denoising").standard_normal(x0.shape, dtype="float32"))
            error = denoiser(level.diffuse(x0, eps)[None], level).x0.clamp(-1, 1)[0] - x0
            found.append(-10.0 * (error.square().mean() / 4.0).log10())
    return torch.stack(found).view(len(RATIOS), -1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="a folder of images at least as large as the largest size")
    parser.add_argument("--prior", default="faces64", help="a name or a path (default: faces64)")
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 96, 128])
    parser.add_argument("--count", type=int, default=8, help="images")
    return parser.parse_args()


if __name__ == "__main__":
    main()
