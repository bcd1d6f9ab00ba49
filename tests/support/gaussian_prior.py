"""A Gaussian prior for tests: its exact denoiser as a network behind the project's Prior and Denoiser, and what goes with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import sqrt

import closed_form
import numpy as np
import torch
from closed_form import GaussianLaw
from torch import Tensor, nn

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.image_random import ImageRandom, image_generator
from diffusion_priors.diffusion.levels import CLEAN, NoiseLevel
from diffusion_priors.diffusion.preconditioning import X0, Eps, Score, V
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.samplers import Sampler
from diffusion_priors.diffusion.schedules import Linear, Schedule
from diffusion_priors.diffusion.transitions import DDIM, FixedLarge, FixedSmall
from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.blur import DeblurGaussian
from diffusion_priors.operators.identity import Identity
from diffusion_priors.operators.inpainting import InpaintBox, InpaintRandom
from diffusion_priors.operators.measurement import Measurement
from diffusion_priors.operators.noise_models import Gaussian
from diffusion_priors.operators.resampling import SuperResolution
from diffusion_priors.solvers.base import Problem, Step

OUTPUTS = {
    "eps": (Eps, lambda x, x0, alpha, sigma: (x - alpha * x0) / sigma),
    "x0": (X0, lambda x, x0, alpha, sigma: x0),
    "v": (V, lambda x, x0, alpha, sigma: alpha * (x - alpha * x0) / sigma - sigma * x0),
    "score": (Score, lambda x, x0, alpha, sigma: (alpha * x0 - x) / sigma**2),
}
"""What a network may give for x_t, of its x̂0."""


class GaussianNetwork(nn.Module):
    """The network of x0 ~ N(m, S): x̂0 = m + α S (α² S + σ² I)⁻¹ (x_t − α m), given as `kind` says."""

    def __init__(self, law: GaussianLaw, schedule: Schedule, kind: str = "eps") -> None:
        super().__init__()
        values, vectors = np.linalg.eigh(law.covariance)
        self.output = OUTPUTS[kind][1]
        tables = {
            "mean": law.mean,
            "values": values,
            "vectors": vectors,
            "alphas": [level.alpha for level in schedule.table],
            "sigmas": [level.sigma for level in schedule.table],
        }
        for name, table in tables.items():
            self.register_buffer(name, torch.tensor(np.asarray(table), dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.alphas[t][:, None], self.sigmas[t][:, None]
        flat = x.flatten(1)
        gains = alpha * self.values / (alpha**2 * self.values + sigma**2)
        x0 = self.mean + ((flat - alpha * self.mean) @ self.vectors * gains) @ self.vectors.T
        return self.output(flat, x0, alpha, sigma).view_as(x)


@cache
def random_law(side: int) -> GaussianLaw:
    """A mean in ±0.4 and a covariance whose eigenvalues go from 0.04 to 0.8 in equal factors."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(side, side)))
    return GaussianLaw(rng.uniform(-0.4, 0.4, side), basis @ np.diag(np.geomspace(0.04, 0.8, side)) @ basis.T)


LINEAR = Linear()


def gaussian_prior(law: GaussianLaw, shape: tuple[int, int, int], schedule: Schedule = LINEAR, kind: str = "eps") -> Prior:
    return Prior(GaussianNetwork(law, schedule, kind), schedule, OUTPUTS[kind][0](), size=shape[1:], channels=shape[0], clip=False)


class RecordedNoise:
    """Hands out the draws (K, B, D) one after the other, and knows how many were taken."""

    def __init__(self, draws: np.ndarray) -> None:
        self.draws, self.taken = draws, 0

    def normal(self, like: Tensor) -> Tensor:
        z = self.draws[self.taken]
        self.taken += 1
        return torch.from_numpy(np.ascontiguousarray(z)).to(like).view_as(like)


@dataclass(frozen=True)
class Case:
    """An image's shape, an operator of the project, and its matrix, given the mask drawn where there is one."""

    shape: tuple[int, int, int]
    operator: Callable[[], Operator]
    matrix: Callable[[np.ndarray | None], np.ndarray]


BOX = np.array([[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]], dtype=float)

CASES = {
    "identity": Case((1, 1, 2), Identity, lambda mask: np.eye(2)),
    "box": Case((3, 4, 4), lambda: InpaintBox(size=(2, 2), place=(1, 1)), lambda mask: closed_form.mask_matrix(BOX, 3)),
    "random mask": Case((3, 2, 3), lambda: InpaintRandom(keep=0.6), lambda mask: closed_form.mask_matrix(mask, 3)),
    "blur": Case(
        (1, 4, 3),
        lambda: DeblurGaussian(size=3, std=0.8, boundary="reflect"),
        lambda mask: closed_form.separable_matrix(*(closed_form.gaussian_blur(side, 3, 0.8, "reflect") for side in (4, 3)), 1),
    ),
    "super-resolution": Case(
        (3, 4, 4),
        lambda: SuperResolution(factor=2),
        lambda mask: closed_form.separable_matrix(closed_form.block_mean(4, 2), closed_form.block_mean(4, 2), 3),
    ),
}


@dataclass
class Setting:
    """A Problem on a Gaussian prior with B images, and the same in numpy: law, matrices (B), y and σ_y (B)."""

    problem: Problem
    schedule: Schedule
    law: GaussianLaw
    matrices: list[np.ndarray]
    y: np.ndarray
    sigma_y: np.ndarray

    @property
    def table(self) -> list[NoiseLevel]:
        return self.schedule.table

    def tensor(self, flat: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(flat)).view(self.problem.like.shape)

    def record(self, draws: np.ndarray) -> Problem:
        """The problem with these draws (K, B, D) for its noise."""
        return with_rng(self.problem, RecordedNoise(draws))


def with_rng(problem: Problem, rng) -> Problem:
    return replace(problem, rng=rng)


def measure(law: GaussianLaw, matrix: np.ndarray, sigma: float, number: int) -> np.ndarray:
    """y = A x0 + σ_y n for image `number` of the law; an entry that no pixel reaches stays 0."""
    rng = np.random.default_rng([1, number])
    y = matrix @ rng.multivariate_normal(law.mean, law.covariance) + sigma * rng.normal(size=len(matrix))
    return np.where(matrix.any(axis=1), y, 0.0)


def make_setting(
    name: str,
    batch: int = 3,
    sampler: Sampler | None = None,
    sigma_y: Sequence[float] = (0.1, 0.2, 0.4),
    same_measurement: bool = False,
) -> Setting:
    """`batch` images of CASES[name], each with its own mask, y and σ_y, or all with the first one's."""
    case = CASES[name]
    side = int(np.prod(case.shape))
    law = random_law(side)
    prior = gaussian_prior(law, case.shape)
    like = torch.zeros(batch, *case.shape, dtype=torch.float64)
    numbers = [0] * batch if same_measurement else list(range(batch))
    operator = case.operator().draw(like, [image_generator(0, b, "measurement") for b in numbers])
    masks = operator.mask[:, 0].numpy() if hasattr(operator, "mask") else [None]
    own = {b: case.matrix(masks[b % len(masks)]) for b in set(numbers)}
    sigma = {b: float(sigma_y[b % len(sigma_y)]) for b in own}
    measured = {b: measure(law, own[b], sigma[b], b) for b in own}
    matrices, sigmas, y = [own[b] for b in numbers], np.array([sigma[b] for b in numbers]), np.stack([measured[b] for b in numbers])
    problem = Problem(
        denoiser=Denoiser(prior),
        measurement=Measurement(
            operator=operator,
            noise_model=Gaussian(),
            y=torch.from_numpy(y).view(batch, *operator(like).shape[1:]),
            sigma_y=torch.from_numpy(sigmas).view(-1, 1, 1, 1),
        ),
        sampler=sampler or FixedSmall(),
        like=like,
        rng=ImageRandom([image_generator(0, b, "sampling") for b in range(batch)]),
    )
    return Setting(problem, prior.image_schedule, law, matrices, y, sigmas)


def bars_of(jump: tuple[int, int | None]) -> tuple[float, float]:
    """ᾱ at the level left and at the level reached; None is the noise-free end."""
    bars = closed_form.linear_bars()
    return bars[jump[0]], 1.0 if jump[1] is None else bars[jump[1]]


def step_of(setting: Setting, jump: tuple[int, int | None]) -> Step:
    return Step(setting.table[jump[0]], CLEAN if jump[1] is None else setting.table[jump[1]])


def state(setting: Setting, bar: float, draws: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """x_t of each image, and `draws` of noise, each (B, D)."""
    rng = np.random.default_rng(7)
    batch, side = len(setting.matrices), setting.law.side
    x0 = rng.multivariate_normal(setting.law.mean, setting.law.covariance, size=batch)
    return sqrt(bar) * x0 + sqrt(1 - bar) * rng.normal(size=(batch, side)), rng.normal(size=(draws, batch, side))


TRANSITIONS = {
    "ddpm, small": (FixedSmall(), closed_form.ddpm),
    "ddpm, large": (FixedLarge(), lambda *args: closed_form.ddpm(*args, large=True)),
    "ddim, eta 0": (DDIM(), closed_form.ddim),
    "ddim, eta 0.6": (DDIM(0.6), lambda *args: closed_form.ddim(*args, eta=0.6)),
    "ddim, eta 1": (DDIM(1.0), lambda *args: closed_form.ddim(*args, eta=1.0)),
}
"""A transition of the project and the numpy update (x, score, ᾱ_t, ᾱ_s, z) it should be."""
