"""The denoiser: network, preconditioning and pixel range seen as one function x̂0 = E[x0 | x_t]."""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.priors.base import Prior


class Denoised(NamedTuple):
    """x̂0 (B, C, H, W) in [-1, 1] units, and the variance fraction in [0, 1], or None where none is learned.

    `eps` is the noise estimate that a sampler keeps although x̂0 was corrected (DDNM, DDS); None lets it follow x̂0.
    `unguided` is the x̂0 to look at where `x0` was shifted to stand for an augmented score; None where they are the same.
    """

    x0: Tensor
    variance_fraction: Tensor | None = None
    eps: Tensor | None = None
    unguided: Tensor | None = None

    @property
    def image(self) -> Tensor:
        """The estimate of x0 that an observer sees."""
        return self.x0 if self.unguided is None else self.unguided

    def with_score_change(self, level: NoiseLevel, change: Tensor) -> Denoised:
        """The estimate that belongs to the score s + `change` at `level`; see `NoiseLevel.guided`."""
        return self._replace(x0=level.guided(self.x0, change), unguided=self.image)


class PullBack(Protocol):
    """v (B, C, H, W) → Jᵀ v, J = ∂x̂0/∂x_t. `again` keeps the graph for another call."""

    def __call__(self, v: Tensor, again: bool = False) -> Tensor: ...


class Denoiser(nn.Module):
    """x̂0 = E[x0 | x_t] of a prior; one network call per call. `score` and `eps` follow from x̂0 by the level.

    The network is frozen and in evaluation mode, but differentiable in x. With `clip` (the prior's) x̂0 is
    clamped to [-1, 1] inside the graph, as in the code of DPS: a saturated pixel passes no gradient.
    `autocast` wraps the network alone; x̂0 leaves in the dtype of x.
    `forwards` and `vjps` count what was spent, for a batch, since the last `reset`.
    """

    def __init__(self, prior: Prior, autocast: torch.dtype | None = None) -> None:
        super().__init__()
        self.network = prior.network.eval().requires_grad_(False)
        self.preconditioning = prior.preconditioning
        self.clip = prior.clip
        self.scale, self.shift = prior.pixel_scale, prior.pixel_shift
        self.autocast = autocast
        self.reset()

    def reset(self) -> None:
        self.forwards = self.vjps = 0

    def forward(self, x: Tensor, level: NoiseLevel) -> Denoised:
        """x (B, C, H, W) at `level`, in [-1, 1] units → x̂0 and the variance fraction."""
        shifted = self.scale != 1.0 or self.shift != 0.0
        inner = self.scale * x + level.alpha * self.shift if shifted else x
        own = NoiseLevel(level.t, level.alpha, level.sigma * self.scale) if shifted else level
        output, fraction = split_variance(self._run(*self.preconditioning.inputs(inner, own)), x.shape[1])
        x0 = self.preconditioning.x0(inner, output, own)
        if shifted:
            x0 = (x0 - self.shift) / self.scale
        return Denoised(x0.clamp(-1.0, 1.0) if self.clip else x0, None if fraction is None else fraction.detach())

    def linearise(self, x: Tensor, level: NoiseLevel) -> tuple[Denoised, PullBack]:
        """x̂0 and the pull-back v → Jᵀ v through the same graph: one forward pass, then one vector-Jacobian product a call."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            graph = self(x, level)

        def pull_back(v: Tensor, again: bool = False) -> Tensor:
            if not graph.x0.requires_grad:  # x_t says nothing about x0, as at the start of a flow
                return torch.zeros_like(v)
            return torch.autograd.grad(graph.x0, x, v, retain_graph=again)[0]

        return graph._replace(x0=graph.x0.detach()), pull_back

    def _run(self, x: Tensor, noise: float | Tensor) -> Tensor:
        rows = 1 if getattr(self.network, "shares_level", False) else x.shape[0]
        t = torch.full((rows,), noise, device=x.device)  # type: ignore[arg-type]  # a number, as the level holds numbers
        with torch.autocast(x.device.type, self.autocast) if self.autocast else nullcontext():
            output = self.network(x, t)
        self.forwards += 1
        if output.requires_grad:
            output.register_hook(self._count_vjp)
        return output.to(x.dtype)

    def _count_vjp(self, gradient: Tensor) -> None:
        self.vjps += 1


def split_variance(output: Tensor, channels: int) -> tuple[Tensor, Tensor | None]:
    """A network's output → its part for the mean, and the variance fraction f = (v + 1)/2, or None where there is none.

    Raises ValueError where it has neither `channels` nor twice as many.
    """
    if output.shape[1] == channels:
        return output, None
    if output.shape[1] == 2 * channels:
        mean, variance = output.chunk(2, dim=1)
        return mean, (variance + 1.0) / 2.0
    raise ValueError(
        f"the network gave {output.shape[1]} channels for an image of {channels}; "
        f"it must give {channels}, or {2 * channels} with learned variance; check prior.channels and the network's flags"
    )
