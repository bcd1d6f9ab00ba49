"""Priors with an exact network: prior=gaussian, prior=gmm and prior=empirical."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffusion_priors.diffusion.analytic.empirical import Empirical
from diffusion_priors.diffusion.analytic.laws import Gaussian, Law, Mixture
from diffusion_priors.diffusion.analytic.means import Means
from diffusion_priors.diffusion.analytic.shapes import CovarianceShape
from diffusion_priors.diffusion.preconditioning import X0
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.schedules import Schedule


class ExactNetwork(nn.Module):
    """(x_t, t) → x̂0 = E[x0 | x_t] of a law, at the schedule's levels; in double precision inside, in x's type outside."""

    def __init__(self, law: Law, schedule: Schedule) -> None:
        super().__init__()
        self.law, self.schedule = law, schedule

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        times = t.unique().tolist()
        if len(times) == 1:
            return self.law.x0(x.double(), self.schedule.level(times[0])).to(x.dtype)
        x0 = torch.empty_like(x)
        for time in times:
            x0[t == time] = self.law.x0(x[t == time].double(), self.schedule.level(time)).to(x.dtype)
        return x0


def exact(law: Law, schedule: Schedule) -> Prior:
    """The prior of a law. x̂0 is not clamped: a Gaussian's images know no bounds."""
    channels, height, width = law.shape
    return Prior(ExactNetwork(law, schedule), schedule, X0(), size=(height, width), channels=channels, clip=False)


def gaussian(
    schedule: Schedule, covariance: CovarianceShape, size: tuple[int, int] = (64, 64), channels: int = 3, mean: float = 0.0
) -> Prior:
    """N(mean, S). Raises ValueError where `covariance` does not fit the images."""
    shape = _checked(size, channels)
    return exact(Gaussian(torch.tensor(mean), covariance(shape)), schedule)


def mixture(
    schedule: Schedule,
    covariance: CovarianceShape,
    means: Means,
    size: tuple[int, int] = (64, 64),
    channels: int = 3,
    weights: list[float] | None = None,
) -> Prior:
    """Σ_k w_k N(m_k, S), all with the same covariance; without `weights` all have the same weight.

    Raises ValueError where `covariance` or `means` do not fit the images.
    """
    shape = _checked(size, channels)
    around, centres = covariance(shape), means(shape)
    return exact(Mixture(weights, [Gaussian(centre, around) for centre in centres]), schedule)


def empirical(
    schedule: Schedule, means: Means, size: tuple[int, int] = (64, 64), channels: int = 3, weights: list[float] | None = None
) -> Prior:
    """Σ_i w_i δ(x0 − x_i), the images x_i given by `means`; without `weights` all have the same weight.

    Raises ValueError where `means` or `weights` do not fit the images.
    """
    return exact(Empirical(means(_checked(size, channels)), weights), schedule)


def law_of(prior: Prior) -> Law:
    """The law of a prior made here. Raises ValueError for any other: its law is not known."""
    if not isinstance(prior.network, ExactNetwork):
        raise ValueError("the exact posterior is known for prior=gaussian, prior=gmm and prior=empirical only; choose one of them")
    return prior.network.law


def _checked(size: tuple[int, int], channels: int) -> tuple[int, int, int]:
    if len(size) != 2 or min(size) < 1 or channels not in (1, 3):
        raise ValueError(
            f"images have 1 or 3 channels and two positive sides, got {channels} and {list(size)}; set prior.channels, prior.size"
        )
    return (channels, *size)
