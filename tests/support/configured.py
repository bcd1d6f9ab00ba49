"""The project's configured solvers and operators, and small networks that are no Gaussian's, to run them on."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import hydra
import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from operator_cases import FUNCTIONS
from PIL import Image
from torch import Tensor, nn

from diffusion_priors.conf import PROJECT
from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.image_random import ImageRandom, image_generator
from diffusion_priors.diffusion.preconditioning import Eps
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.samplers import Sampler
from diffusion_priors.diffusion.schedules import Linear
from diffusion_priors.diffusion.transitions import FixedSmall
from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.measurement import Measurement
from diffusion_priors.operators.noise_models import Gaussian
from diffusion_priors.solvers.base import Problem, Solver

SCHEDULE = Linear()
SHAPE = (3, 16, 16)


def options(group: str) -> list[str]:
    """The yaml files of a config group."""
    return sorted(path.stem for path in (PROJECT / "conf" / group).glob("*.yaml"))


@cache
def composed(group: str, option: str):
    with hydra.initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        return hydra.compose("sample", overrides=[f"{group}={option}"])[group]


def make_solver(name: str) -> Solver:
    return instantiate(composed("solver", name), _convert_="all")


def make_sampler(name: str) -> Sampler:
    return instantiate(composed("sampler", name), _convert_="all")


def make_operator(name: str, folder: Path) -> Operator:
    """The operator of conf/operator/<name>.yaml; where it wants a file, one is written to `folder`."""
    node = OmegaConf.create(OmegaConf.to_container(composed("operator", name)))
    for key in OmegaConf.missing_keys(node):
        OmegaConf.update(node, key, FUNCTIONS[name] if name in FUNCTIONS else _written(name, folder))
    return instantiate(node, _convert_="all")


def _written(name: str, folder: Path) -> str:
    """The path of a file for an operator."""
    rng = np.random.default_rng(0)
    if "kernel" in name:
        np.save(folder / "kernel.npy", rng.uniform(size=(3, 5)) / 7.5)
        return str(folder / "kernel.npy")
    Image.fromarray((rng.uniform(size=SHAPE[1:]) < 0.7).astype(np.uint8) * 255).save(folder / "mask.png")
    return str(folder / "mask.png")


class CountBackward(torch.autograd.Function):
    """The identity; adds the rows of every backward pass through it to `network.vjp_rows`."""

    @staticmethod
    def forward(context, x, network):
        context.network = network
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        context.network.vjp_rows += len(gradient)
        return gradient, None


class SmallNetwork(nn.Module):
    """A random convolutional ε̂(x_t, t) with GroupNorm in float64, nonlinear in x. Counts calls, their rows and those of backward passes.

    In the calls `poisoned_calls`, counted from 0, the images `poisoned` of `images` come out as NaN, all their particles.
    """

    def __init__(self, channels: int = 3, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.enter = nn.Conv2d(channels, 8, 3, padding=1)
            self.norm = nn.GroupNorm(2, 8)
            self.leave = nn.Conv2d(8, channels, 3, padding=1)
        self.double()
        self.calls = self.rows = self.vjp_rows = 0
        self.poisoned, self.poisoned_calls, self.images = [], range(0), 1

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        hidden = self.enter(x) + (t / 1000.0).view(-1, 1, 1, 1)
        output = CountBackward.apply(self.leave(torch.nn.functional.silu(self.norm(hidden))), self)
        if self.calls in self.poisoned_calls:
            spoilt = torch.zeros_like(output)
            spoilt.unflatten(0, (self.images, -1))[self.poisoned] = torch.nan
            output = output + spoilt
        self.calls, self.rows = self.calls + 1, self.rows + len(x)
        return output


def poison(problem: Problem, images: list[int], first: int, calls: int = 10**6) -> None:
    """From the `first` call of the next run on, for `calls` calls, the network gives NaN for these images."""
    network = problem.denoiser.network
    network.poisoned, network.poisoned_calls = images, range(network.calls + first, network.calls + first + calls)
    network.images = len(problem.like)


def make_problem(
    operator: Operator,
    ids: list[int],
    sampler: Sampler | None = None,
    clip: bool = True,
    denoiser: Denoiser | None = None,
    dtype: torch.dtype = torch.float64,
) -> Problem:
    """Images number `ids` of a fixed set, measured by `operator` with σ_y = 0.05, each from generators of its own.

    `denoiser` None is that of a SmallNetwork, which computes in float64.
    """
    like = torch.zeros(len(ids), *SHAPE, dtype=dtype)
    operator.draw(like, [image_generator(0, b, "measurement") for b in ids])
    sources = [image_generator(0, b, "truth") for b in ids]
    truth = torch.stack([torch.from_numpy(g.random(SHAPE)) for g in sources]).to(like) * 2.0 - 1.0
    y = operator(truth)
    noise = torch.stack([torch.from_numpy(g.standard_normal(y.shape[1:])) for g in sources]).to(like)
    return Problem(
        denoiser=denoiser or Denoiser(Prior(SmallNetwork(), SCHEDULE, Eps(), size=SHAPE[1:], clip=clip)),
        measurement=Measurement(
            operator=operator,
            noise_model=Gaussian(0.05),
            y=(y + 0.05 * noise) * operator.support(y),
            sigma_y=torch.full((len(ids), 1, 1, 1), 0.05, dtype=like.dtype),
        ),
        sampler=sampler or FixedSmall(),
        like=like,
        rng=ImageRandom([image_generator(0, b, "sampling") for b in ids]),
    )
