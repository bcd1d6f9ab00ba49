"""Full-reference metrics, one value per image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffusion_priors.evaluation.metrics.calibration import Calibration
from diffusion_priors.evaluation.metrics.distribution import Distribution
from diffusion_priors.evaluation.metrics.lpips import LPIPS, TrunkMissing


class Metrics(nn.Module):
    """PSNR (dB), SSIM (Wang et al. 2004) and LPIPS of images (B, C, H, W) in [-1, 1], clamped, per image.

    PSNR and SSIM are those of torchmetrics, on [0, 1] images with data range 1. With `round_to_8bit` every metric sees
    the images as their PNGs store them. `lpips=None` disables LPIPS; after `prepare`, `footnote` states why LPIPS has
    no value. `lpips_vgg` and `lpips_squeeze` are further metrics. `names` lists the metrics in order. `distribution`
    compares the set of all restorations with that of the ground truths. `calibration` compares the spread of each
    image's samples with their error.
    """

    smallest_ssim = 11

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

    def prepare(self) -> None:
        """Load the LPIPS trunks. Without its trunk an LPIPS is null from here on, and the footnote states why."""
        reasons = [] if "lpips" in self.distances else ["LPIPS: not computed (metrics.lpips is null)"]
        for name, distance in list(self.distances.items()):
            try:
                distance.prepare()
            except TrunkMissing as error:
                reasons.append(f"{name.upper().replace('_', ' ')}: {error}")
                del self.distances[name]
        self.footnote = "; ".join(reasons)

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
        if side >= self.smallest_ssim:
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
    """SSIM (Wang et al. 2004) of images in [0, 1], (B,)."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    return structural_similarity_index_measure(x, truth, data_range=1.0, reduction="none").reshape(-1)
