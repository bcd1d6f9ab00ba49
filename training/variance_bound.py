"""The variational bound that trains the learned variance."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, sqrt

import torch
from torch import Tensor, nn

from diffusion_priors.diffusion.levels import CLEAN, NoiseLevel
from diffusion_priors.diffusion.transitions import posterior_variance, step_variance


class VarianceBound(nn.Module):
    """L_t = KL(q(x_s | x_t, x0) ‖ p(x_s | x_t)) for t > 0, L_0 = −log p(x0 | x_1), in bits per pixel (Nichol & Dhariwal 2021, Sec. 3.1).

    p has the mean of x̂0 and log variance f log β + (1 − f) log β̃ (Eq. 15). x̂0 is held fixed: the bound trains the
    variance alone. L_0 is the discretised Gaussian of Ho et al. 2020, Eq. 13, with bins 2/255 · `scale` wide.
    As in the official code, the β̃ of t = 1 replaces that of t = 0, which is zero, and x̂0 is not clamped.
    Images are in the network's units: `scale` · p + `shift` for a pixel p in [-1, 1].
    """

    def __init__(self, levels: Sequence[NoiseLevel], scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        before = [CLEAN, *levels[:-1]]
        beta = [step_variance(now, then) for now, then in zip(levels, before, strict=True)]
        posterior = [posterior_variance(now, then) for now, then in zip(levels, before, strict=True)]
        posterior[0] = posterior[1] if len(levels) > 1 else beta[0]
        coefficient = [then.alpha * b / now.sigma**2 for now, then, b in zip(levels, before, beta, strict=True)]
        self.scale, self.shift = scale, shift
        for name, values in (("log_beta", [log(b) for b in beta]), ("log_posterior", [log(p) for p in posterior]), ("mean", coefficient)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)

    def forward(self, x0: Tensor, x0_hat: Tensor, variance_fraction: Tensor, index: Tensor) -> Tensor:
        """x0, x̂0 and the variance fraction (B, C, H, W) at the levels `index` (B,) → the bound per image (B,)."""
        log_q, log_beta, mean = (table[index].view(-1, 1, 1, 1) for table in (self.log_posterior, self.log_beta, self.mean))
        log_p = variance_fraction * log_beta + (1.0 - variance_fraction) * log_q
        difference = x0 - x0_hat.detach()
        divergence = 0.5 * (log_p - log_q - 1.0 + (log_q - log_p).exp() + (mean * difference) ** 2 * (-log_p).exp())
        reconstruction = -self._log_bin(difference, 0.5 * log_p, x0)
        return torch.where(index.view(-1, 1, 1, 1) == 0, reconstruction, divergence).flatten(1).mean(1) / log(2.0)

    def _log_bin(self, difference: Tensor, log_std: Tensor, x0: Tensor) -> Tensor:
        """log of the Gaussian's mass in the bin around x0. The outermost bins extend to infinity."""
        half, inverse, lower = self.scale / 255.0, (-log_std).exp(), -difference.abs()
        inner = _normal_cdf((lower + half) * inverse) - _normal_cdf((lower - half) * inverse)  # by symmetry, in the tail where Φ is precise
        pixel = (x0 - self.shift) / self.scale
        first, last = _normal_cdf((difference + half) * inverse), _normal_cdf((half - difference) * inverse)
        mass = torch.where(pixel < -0.999, first, torch.where(pixel > 0.999, last, inner))
        return mass.clamp(min=1e-12).log()


def _normal_cdf(x: Tensor) -> Tensor:
    """Φ(x), precise for x far below 0."""
    return 0.5 * torch.erfc(-x / sqrt(2.0))
