"""One step of denoising on images that are known: the error of a prior at several levels of noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log, log10
from statistics import median

import torch
from torch import Tensor

from diffusion_priors.checkpoints.changes import Change, changes
from diffusion_priors.checkpoints.networks import Retimed
from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.image_random import image_generator
from diffusion_priors.diffusion.priors.base import Prior

CURVE = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""σ/α of the levels that are shown."""
COMPARED = (0.1, 0.5, 2.0)
"""Those at which changes are compared."""
CALIBRATED = (0.055, 0.08, 0.145)
"""Those at which an index is measured: low enough that the next index differs by percents, high enough to see noise in an image."""
SHIFTS = (0, -2, 2, -4, 4, -8, 8, -16, 16, -32, 32)
DECIBELS = 10.0 / log(10.0)
"""dB of a natural logarithm of 1."""
ALIKE = 0.05
"""Of that logarithm: a thousand steps and an index that counts to a thousand, say, differ by less."""
MOST_CHANGES = 3
LEAST_GAIN = 0.05
"""Of the logarithm of the error, 0.2 dB: a change must be better by that, and better for every image, to be believed."""


@dataclass(frozen=True)
class Faces:
    """Clean images (B, C, H, W) in [-1, 1], and the noise (B, C, H, W) that is added to each."""

    x0: Tensor
    eps: Tensor

    @staticmethod
    def of(x0: Tensor) -> Faces:
        draws = [image_generator(0, f"{i}", 0, "denoising").standard_normal(x0.shape[1:], dtype="float32") for i in range(len(x0))]
        return Faces(x0, torch.stack([torch.from_numpy(draw) for draw in draws]))


@torch.no_grad()
def errors(prior: Prior, faces: Faces, ratios: Sequence[float]) -> Tensor:
    """ln mean (x̂0 − x0)² of each image at the levels nearest to σ/α = `ratios`, x̂0 not clamped: (ratios, images)."""
    denoiser = Denoiser(_unclamped(prior))
    rows = []
    for ratio in ratios:
        level = prior.image_schedule.at(ratio)
        x0 = denoiser(level.diffuse(faces.x0, faces.eps), level).x0
        rows.append((x0 - faces.x0).square().mean(dim=(1, 2, 3)).log().nan_to_num(posinf=100.0, nan=100.0))
    return torch.stack(rows)


def reached(prior: Prior, ratios: Sequence[float]) -> list[float]:
    """σ/α of the levels nearest to `ratios`: a schedule may end before them."""
    return [prior.image_schedule.at(ratio).noise_to_signal for ratio in ratios]


def shrinkage(faces: Faces, ratios: Sequence[float]) -> Tensor:
    """ln v u²/(v + u²), u = σ/α: the error of the best multiple of each image's noisy deviation from its mean, v its variance."""
    variance = faces.x0.var(dim=(1, 2, 3))
    return torch.stack([(variance * ratio**2 / (variance + ratio**2)).log() for ratio in ratios])


@dataclass(frozen=True)
class Found:
    """A change that denoises better, by `gain` dB, and those that do as well: other words for the same."""

    change: Change
    gain: float
    alike: tuple[Change, ...] = ()


def corrections(prior: Prior, faces: Faces) -> tuple[list[Found], Prior]:
    """The changes that lower the error, best first, each found with those before it made; → them and the prior that has them all."""
    found: list[Found] = []
    while len(found) < MOST_CHANGES:
        now = errors(prior, faces, COMPARED)
        tried = [
            (change, gain) for change in changes(prior) if (gain := _gain(change.apply(prior), faces, now, reached(prior, COMPARED))) > 0.0
        ]
        if not tried:
            break
        most = max(gain for _, gain in tried)
        (change, gain), *others = [one for one in tried if one[1] > most - ALIKE]
        found.append(Found(change, DECIBELS * gain, tuple(other for other, _ in others)))
        prior = change.apply(prior)
    return found, prior


def _gain(prior: Prior, faces: Faces, now: Tensor, ratios: Sequence[float]) -> float:
    """By how much the mean of the logarithm of the error is lower than `now`; 0 where that is not so for every image.

    `ratios` are the σ/α of `now`: a schedule that ends below them has an easier task, and is not compared. Most changes are seen to be
    wrong at one level already.
    """
    if any(own < 0.8 * ratio for own, ratio in zip(reached(prior, COMPARED), ratios, strict=True)):
        return 0.0
    middle = len(COMPARED) // 2
    if (now[middle] - errors(prior, faces, COMPARED[middle : middle + 1])[0]).mean() <= 0.0:
        return 0.0
    gains = (now - errors(prior, faces, COMPARED)).mean(dim=0)
    return gains.mean().item() if gains.mean() > LEAST_GAIN and gains.min() > 0.0 else 0.0


def index_shift(prior: Prior, faces: Faces) -> list[float] | None:
    """s with ⟨ε̂(t + s), ε⟩ = ‖ε̂(t + s)‖²: the index at which the network is calibrated for the noise of index t, at three levels.

    E[ε | x_t] has this property, as ε − E[ε | x_t] is orthogonal to every function of x_t. None for a schedule without indices, and
    where no shift of at most 32 has it.
    """
    if prior.schedule.table is None:
        return None
    found = [_crossing(prior, faces, ratio) for ratio in CALIBRATED]
    return sorted(shift for shift in found if shift is not None) if None not in found else None


def summary(shifts: Sequence[float]) -> tuple[float, float, float]:
    """Median, lowest, highest."""
    return median(shifts), min(shifts), max(shifts)


@torch.no_grad()
def _crossing(prior: Prior, faces: Faces, ratio: float) -> float | None:
    """The shift nearest to 0 at which ⟨ε̂, ε⟩/‖ε̂‖² is 1, between two of those tried."""
    level = prior.image_schedule.at(ratio)
    x = level.diffuse(faces.x0, faces.eps)
    excess: dict[int, float] = {}
    for shift in SHIFTS:
        if not 0 <= level.t + shift < len(prior.schedule.discretised()):
            continue
        shifted = prior.with_network(Retimed(prior.network, shift=shift * _step(prior)))
        eps = level.eps(x, Denoiser(_unclamped(shifted))(x, level).x0)
        excess[shift] = ((eps * faces.eps).sum() / eps.square().sum() - 1.0).item()
        tried = sorted(excess)
        for a, b in pairwise(tried):
            if excess[a] <= 0.0 <= excess[b]:  # a later index expects more noise, and gives less of it back
                return a + (b - a) * excess[a] / (excess[a] - excess[b] or 1.0)
    return None


def _step(prior: Prior) -> float:
    """What the fed value rises by from one index to the next."""
    table = prior.schedule.discretised()
    zeros = torch.zeros(1, 1, 1, 1)
    first, second = (float(prior.preconditioning.inputs(zeros, level)[1]) for level in table[:2])
    return second - first


def _unclamped(prior: Prior) -> Prior:
    other = prior.with_network(prior.network)
    other.clip = False
    return other


def psnr(log_error: Tensor) -> float:
    """dB of the mean error over images, on the scale of [0, 1]."""
    return -10.0 * log10(log_error.exp().mean().item() / 4.0)
