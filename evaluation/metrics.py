"""Full-reference metrics, one value per picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from evaluation.lpips_distance import LPIPS, TrunkMissing

NAMES = ("psnr", "ssim", "lpips")


class Metrics(nn.Module):
    """PSNR (dB), SSIM (Wang et al. 2004) and LPIPS of pictures (B, C, H, W) in [-1, 1], clamped, per picture.

    PSNR and SSIM are torchmetrics' on [0, 1] pictures with data range 1. With `round_to_8bit` all three see the
    pictures as their PNGs will hold them. `lpips=None` leaves LPIPS out; once prepared, `footnote` says why it has
    no value.
    """

    smallest_ssim = 11

    def __init__(self, lpips: LPIPS | None = None, round_to_8bit: bool = True) -> None:
        super().__init__()
        self.lpips, self.round_to_8bit = lpips, round_to_8bit
        self.footnote = ""

    def prepare(self) -> None:
        """Load the LPIPS trunk. Where it cannot be had, LPIPS is null from here on and the footnote says why."""
        if self.lpips is None:
            self.footnote = "LPIPS: not computed (metrics.lpips is null)"
            return
        try:
            self.lpips.prepare()
        except TrunkMissing as error:
            self.lpips, self.footnote = None, f"LPIPS: {error}"

    @torch.no_grad()
    def forward(self, x: Tensor, truth: Tensor) -> dict[str, list[float]]:
        """{"psnr": […], "ssim": […], "lpips": […]}; NaN where a picture is too small for a metric or LPIPS is absent."""
        x, truth = self._seen(x), self._seen(truth)
        side = min(x.shape[-2:])
        values = {"psnr": peak_signal_noise_ratio(x, truth, data_range=1.0, dim=(1, 2, 3), reduction="none")}
        values |= dict.fromkeys(("ssim", "lpips"), x.new_full((x.shape[0],), torch.nan))
        if side >= self.smallest_ssim:
            values["ssim"] = structural_similarity_index_measure(x, truth, data_range=1.0, reduction="none")
        if self.lpips is not None and side >= LPIPS.smallest:
            values["lpips"] = self.lpips(2 * x - 1, 2 * truth - 1)
        return {name: value.reshape(-1).tolist() for name, value in values.items()}

    def _seen(self, x: Tensor) -> Tensor:
        x = (x.float().clamp(-1.0, 1.0) + 1.0) / 2.0
        return (x * 255.0).round() / 255.0 if self.round_to_8bit else x
