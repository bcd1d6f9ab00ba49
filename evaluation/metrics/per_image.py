"""Full-reference metrics, one value per image."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor, nn

from diffusion_priors.evaluation.metrics.calibration import Calibration
from diffusion_priors.evaluation.metrics.distribution import Distribution
from diffusion_priors.evaluation.metrics.lpips import LPIPS, TrunkMissing
from diffusion_priors.evaluation.scores import reason

WINDOW = 11
"""The side of SSIM's window in pixels, and of the smallest image that has an SSIM."""


class Metrics(nn.Module):
    """PSNR (dB), SSIM (Wang et al. 2004) and LPIPS of images (B, C, H, W) in [-1, 1], clamped, per image.

    PSNR and SSIM are computed on [0, 1] images with data range 1. With `round_to_8bit` every metric sees
    the images as their PNGs store them. `lpips=None` disables LPIPS; after `prepare`, `footnote` states why metrics have
    no value. `lpips_vgg` and `lpips_squeeze` are further metrics. `names` lists the metrics in order. `distribution`
    compares the set of all restorations with that of the ground truths. `calibration` compares the spread of each
    image's samples with their error.
    """

    def __init__(
        self,
        lpips: LPIPS | None = None,
        lpips_vgg: LPIPS | None = None,
        lpips_squeeze: LPIPS | None = None,
        round_to_8bit: bool = True,
        distribution: Distribution | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__()
        self.distribution, self.calibration = distribution, calibration
        given = {"lpips": lpips, "lpips_vgg": lpips_vgg, "lpips_squeeze": lpips_squeeze}
        self.distances = nn.ModuleDict({name: distance for name, distance in given.items() if distance is not None})
        self.round_to_8bit = round_to_8bit
        self.names = ("psnr", "ssim", "lpips", *(name for name in self.distances if name != "lpips"))
        self.footnote = ""

    def prepare(self, size: tuple[int, int] | None = None) -> None:
        """Load the LPIPS trunks. The footnote states why a metric has no value: its trunk is missing, or images are too small.

        `size` is the (height, width) of the largest image, None where it is not known.
        """
        side = inf if size is None else min(size)
        reasons = [reason(["ssim"], _too_small(WINDOW, size))] if side < WINDOW else []
        if "lpips" not in self.distances:
            reasons.append(reason(["lpips"], "not computed (metrics.lpips is null)"))
        elif side < LPIPS.smallest:
            reasons.append(reason(list(self.distances), _too_small(LPIPS.smallest, size)))
        for name, distance in list(self.distances.items()) if side >= LPIPS.smallest else []:
            try:
                distance.prepare()
            except TrunkMissing as error:
                reasons.append(reason([name], str(error)))
                del self.distances[name]
        self.footnote = "; ".join(reasons)

    def without_truth(self) -> None:
        """No metric has a value, and the footnote says so."""
        self.footnote = reason(self.names, "there is no ground truth")

    def check(self, images: int, samples: int) -> None:
        """Raises ValueError or OSError if a metric over all images cannot work with `images` images of `samples` samples each."""
        if self.calibration is not None:
            self.calibration.check(samples)
        if self.distribution is not None:
            self.distribution.check(images)

    @torch.no_grad()
    def forward(self, x: Tensor, truth: Tensor) -> dict[str, list[float]]:
        """{"psnr": […], "ssim": […], "lpips": […], …}; NaN if an image is too small for a metric, or without LPIPS."""

        x, truth = self._as_stored(x), self._as_stored(truth)
        side = min(x.shape[-2:])
        values = {"psnr": psnr(x, truth)}
        values |= dict.fromkeys(self.names[1:], x.new_full((x.shape[0],), torch.nan))
        if side >= WINDOW:
            values["ssim"] = ssim(x, truth)
        if side >= LPIPS.smallest:
            values |= {name: distance(2 * x - 1, 2 * truth - 1) for name, distance in self.distances.items()}
        return {name: value.reshape(-1).tolist() for name, value in values.items()}

    def _as_stored(self, x: Tensor) -> Tensor:
        """[-1, 1] → [0, 1], clamped, and rounded to 8 bits if asked for."""
        x = (x.float().clamp(-1.0, 1.0) + 1.0) / 2.0
        return (x * 255.0).round() / 255.0 if self.round_to_8bit else x


def psnr(x: Tensor, truth: Tensor) -> Tensor:
    """10 log₁₀(1/mean (x − truth)²) of images in [0, 1], in dB, (B,)."""
    from torchmetrics.functional.image import peak_signal_noise_ratio  # slow to import

    return peak_signal_noise_ratio(x, truth, data_range=1.0, dim=(1, 2, 3), reduction="none").reshape(-1)


def ssim(x: Tensor, truth: Tensor) -> Tensor:
    """SSIM (Wang et al. 2004, Sec. III-C) of images in [0, 1], (B,): its map averaged over the pixels that have a whole window.

    The window is 11 x 11 with a Gaussian of standard deviation 1.5. As in the authors' code and in scikit-image, the 5
    pixels along each border, whose windows leave the image, do not count. Channels are averaged.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    # with its map, torchmetrics also gives the mean over all pixels, the borders included
    _, pixels = structural_similarity_index_measure(x, truth, data_range=1.0, reduction="none", return_full_image=True)
    edge = WINDOW // 2
    return pixels[..., edge:-edge, edge:-edge].flatten(1).mean(1)


def _too_small(least: int, size: tuple[int, int]) -> str:
    return f"needs images of {least} x {least} pixels or more, these have {size[0]} x {size[1]}"
