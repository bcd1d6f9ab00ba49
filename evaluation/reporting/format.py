"""How values become text."""

from __future__ import annotations

FORMS = {
    "psnr": ("PSNR (dB) ↑", ".2f"),
    "ssim": ("SSIM ↑", ".3f"),
    "lpips": ("LPIPS ↓", ".3f"),
    "lpips_vgg": ("LPIPS vgg ↓", ".3f"),
    "lpips_squeeze": ("LPIPS squeeze ↓", ".3f"),
}
"""How each metric is headed, and how its figures are written."""


def heading(metric: str) -> str:
    """psnr → PSNR (dB) ↑; a metric of your own goes by its name."""
    return FORMS.get(metric, (metric,))[0]


def form(metric: str) -> str:
    return FORMS.get(metric, ("", ".3f"))[1]
