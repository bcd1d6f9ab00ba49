"""One Gaussian prior under every schedule, at the same values of σ/α, behind the networks that go with each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from closed_form import GaussianLaw
from torch import Tensor, nn

from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.preconditioning import EDM, Eps, Flow, Preconditioning, Score, V
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.schedules import VE, Betas, Cosine, Linear, Schedule
from diffusion_priors.diffusion.schedules import Flow as FlowSchedule

DATA_STD = 0.7
"""Of EDM's preconditioning. It is not that of the prior, so that c_skip x alone is no good x̂0."""


class SameRatios(Schedule):
    """`schedule` at the values of σ/α that the levels of `reference` have: level k of one has the ratio of level k of the other."""

    def __init__(self, schedule: Schedule, reference: Betas) -> None:
        self.schedule, self.reference, self.kind = schedule, reference, schedule.kind
        self.table = [schedule.at(level.noise_to_signal) for level in reference.table]

    def level(self, t: float) -> NoiseLevel:
        return self.schedule.level(t)

    def at(self, noise_to_signal: float) -> NoiseLevel:
        return self.table[self.reference.at(noise_to_signal).t]

    def after(self, t: float, name: str) -> NoiseLevel:
        return self.table[self.reference.after(t, name).t]

    def discretised(self, total: int = 1000) -> list[NoiseLevel]:
        return self.table


class ExactMean(nn.Module):
    """x̂0 of N(m, S) for x̄ = x0 + u ε."""

    def __init__(self, law: GaussianLaw) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(law.mean))
        self.register_buffer("covariance", torch.from_numpy(law.covariance))

    def forward(self, x: Tensor, u: float) -> Tensor:
        gain = torch.linalg.solve(self.covariance + u**2 * torch.eye(len(self.mean), dtype=x.dtype), self.covariance)
        return (self.mean + (x.flatten(1) - self.mean) @ gain).view_as(x)


class TimedNetwork(nn.Module):
    """What a network fed with x_t and t gives: `output` of x_t, x̂0, α and σ."""

    def __init__(self, law: GaussianLaw, schedule: Schedule, output: Callable) -> None:
        super().__init__()
        self.mean, self.schedule, self.output = ExactMean(law), schedule, output

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        level = self.schedule.level(t[0].item())
        return self.output(x, self.mean(x / level.alpha, level.sigma / level.alpha), level.alpha, level.sigma)


class EDMNetwork(nn.Module):
    """F = (D(x̄; u) − c_skip x̄)/c_out of c_in x̄ and c_noise = ln(u)/4 (Karras et al. 2022, Eq. 7 and Table 1)."""

    def __init__(self, law: GaussianLaw, schedule: Schedule, output: None = None) -> None:
        super().__init__()
        self.mean = ExactMean(law)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        u, d = (4.0 * noise[0].double()).exp().item(), DATA_STD
        total = u**2 + d**2
        x = total**0.5 * x
        return (self.mean(x, u) - d**2 / total * x) / (u * d / total**0.5)


@dataclass(frozen=True)
class Kind:
    """A schedule, and the preconditioning and network of a prior on it."""

    schedule: Schedule
    preconditioning: Preconditioning
    network: type[nn.Module]
    output: Callable | None = None

    def prior(self, law: GaussianLaw, shape: tuple[int, int, int], reference: Betas) -> Prior:
        same = SameRatios(self.schedule, reference)
        network = self.network(law, self.schedule, self.output)
        return Prior(network, same, self.preconditioning, size=shape[1:], channels=shape[0], clip=False)


WIDE_VE, WIDE_FLOW = VE(1e-4, 1e6), FlowSchedule(1e-4, 1.0 - 1e-6)
KINDS = {
    "linear, eps": Kind(Linear(), Eps(), TimedNetwork, lambda x, x0, alpha, sigma: (x - alpha * x0) / sigma),
    "cosine, v": Kind(Cosine(), V(), TimedNetwork, lambda x, x0, alpha, sigma: alpha * (x - alpha * x0) / sigma - sigma * x0),
    "ve, score": Kind(WIDE_VE, Score(), TimedNetwork, lambda x, x0, alpha, sigma: (x0 - x) / sigma**2),
    "ve, edm": Kind(WIDE_VE, EDM(DATA_STD), EDMNetwork),
    "flow, flow": Kind(WIDE_FLOW, Flow(), TimedNetwork, lambda x, x0, alpha, sigma: (x - alpha * x0) / sigma - x0),
    "flow, edm": Kind(WIDE_FLOW, EDM(DATA_STD), EDMNetwork),
}
