"""A small network that is nearly the noise estimate of N(0, I), and differentiable as large ones are."""

from __future__ import annotations

import torch
from configured import SCHEDULE
from torch import Tensor, nn

from diffusion_priors.diffusion.networks.convolution import Convolution


class NearlyGaussian(nn.Module):
    """ε̂ = σ_t x + 0.1 α_t f(x, t), f random: convolutions, GroupNorm and SiLU. Of N(0, I), E[ε | x_t] = σ_t x.

    x̂0 = α_t x − 0.1 σ_t f is then moderate at every level, and so is its Jacobian: rounding is not amplified as by a random ε̂.
    The first term is a convolution too, so that autocast rounds it.
    """

    def __init__(self, channels: int = 3, hidden: int = 8) -> None:
        super().__init__()
        self.same = Convolution(channels, channels, 1, bias=False)
        self.enter = Convolution(channels, hidden, 3, padding=1)
        self.norm = nn.GroupNorm(2, hidden)
        self.leave = Convolution(hidden, channels, 3, padding=1)
        self.register_buffer("sigma", torch.tensor([level.sigma for level in SCHEDULE.table]))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.same.weight.copy_(torch.eye(channels)[:, :, None, None])
            for convolution in (self.enter, self.leave):
                for parameter in (convolution.weight, convolution.bias):
                    parameter.normal_(0.0, convolution.weight[0].numel() ** -0.5, generator=generator)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        sigma = self.sigma[t.long()].view(-1, 1, 1, 1)
        hidden = self.norm(self.enter(x) + (t / 1000.0).view(-1, 1, 1, 1))
        return self.same(sigma * x) + 0.1 * (1.0 - sigma**2).sqrt() * self.leave(nn.functional.silu(hidden))
