"""A case for every conf/operator/*.yaml, boundary and option inside it, drawn as a run draws it."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Generator, Tensor

import conf
from diffusion_priors.diffusion.image_random import image_generator
from diffusion_priors.operators import jpeg, rounding
from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.blur import Convolution
from diffusion_priors.operators.linear import LinearOperator
from diffusion_priors.operators.measurement import Measurement
from diffusion_priors.operators.noise_models import Gaussian
from diffusion_priors.operators.separable import Boundary

BOUNDARIES = get_args(Boundary)
FOLDER = Path(conf.__file__).parent
CONFIGS = {path.stem: path for path in sorted((FOLDER / "operator").glob("*.yaml"))}


def write_mask(folder: Path, sides: tuple[int, int]) -> Path:
    """A disc of known pixels off the centre."""
    row, column = np.mgrid[: sides[0], : sides[1]]
    disc = (row - sides[0] / 3) ** 2 + (column - sides[1] / 2) ** 2 < (min(sides) / 3) ** 2
    Image.fromarray(np.where(disc, 255, 0).astype(np.uint8)).save(folder / "mask.png")
    return folder / "mask.png"


def write_kernel(folder: Path, sides: tuple[int, int]) -> Path:
    """An asymmetric kernel with one even and one odd side, and a negative entry."""
    kernel = np.random.default_rng(0).uniform(size=(4, 5))
    kernel[0, 0] = -0.2
    np.save(folder / "kernel.npy", kernel / kernel.sum())
    return folder / "kernel.npy"


PATHS = {"inpaint_mask": write_mask, "deblur_kernel": write_kernel}
"""Operator → the function that writes a file for its mandatory `path`."""

FUNCTIONS = {"custom": "own_operators.exposed", "custom_linear": "own_operators.ghosted", "deepinv": "own_operators.Ghosted"}
"""Operator → the function or class that stands for a user's own."""
POWERS_OF_TWO = {"walsh_hadamard"}
"""Operators that accept no other sides."""


@dataclass(frozen=True)
class Case:
    """An operator as its yaml describes it, with one boundary if it has boundaries, and an option of one group inside it."""

    name: str
    boundary: str | None = None
    choice: tuple[str, str] | None = None

    def __str__(self) -> str:
        return "-".join(filter(None, (self.name, self.boundary, self.choice and self.choice[1])))

    @property
    def config(self) -> DictConfig:
        """The yaml with its defaults list composed, or `choice` in place of one of these."""
        config = OmegaConf.load(CONFIGS[self.name])
        for key, option in (chosen(config.pop("defaults", [])) | dict([self.choice] if self.choice else [])).items():
            group, place = key.removeprefix("/").split("@")
            OmegaConf.update(config, place, OmegaConf.load(FOLDER / group / f"{option}.yaml"))
        return config

    @property
    def kind(self) -> type[Operator]:
        """The class; for a function that of what it returns."""
        target = get_object(self.config._target_)
        return target if inspect.isclass(target) else type(self.build((16, 16), Path()))

    @property
    def linear(self) -> bool:
        return issubclass(self.kind, LinearOperator)

    @property
    def has_spectrum(self) -> bool:
        """By the class, or where the blur of any kernel is circular."""
        return self.kind.has_spectrum or (issubclass(self.kind, Convolution) and self.boundary == "circular")

    def sides(self, seed: int = 0, least: int = 16, most: int = 28) -> tuple[int, int]:
        """A random height and width that the operator accepts; they differ."""
        source = random.Random(f"{self}{seed}")
        if self.name in POWERS_OF_TWO:
            return tuple(source.sample((8, 16), 2))
        factor = prod(part.get("factor", 1) for part in (self.config, *self.config.get("operators", {}).values()))
        counts = source.sample(range(-(-least // factor), most // factor + 1), 2)
        return counts[0] * factor, counts[1] * factor

    def build(self, sides: tuple[int, int], folder: Path) -> Operator:
        config = self.config
        for key in OmegaConf.missing_keys(config):
            value = FUNCTIONS[self.name] if self.name in FUNCTIONS else str(PATHS[self.name](folder, sides))
            OmegaConf.update(config, key, value)
        if self.boundary is not None:
            config.boundary = self.boundary
        return instantiate(config, _convert_="all")

    def drawn(self, like: Tensor, folder: Path, ids: Iterable[int] | None = None, seed: int = 0) -> Operator:
        """The operator, drawn for images like `like` whose ids are 0, 1, … unless given."""
        operator = self.build(tuple(like.shape[-2:]), folder)
        return operator.draw(like, generators(range(len(like)) if ids is None else ids, seed))


def chosen(defaults: Iterable) -> dict[str, str]:
    """The entries `/group@place: option` of a defaults list."""
    return {key: option for entry in defaults for key, option in entry.items()}


def cases(name: str) -> list[Case]:
    """A case per boundary, or one for each option inside an operator that needs no file; operators inside one have cases of their own."""
    config = OmegaConf.load(CONFIGS[name])
    defaults, others = chosen(config.get("defaults", [])), []
    for key, default in defaults.items():
        group = key.removeprefix("/").split("@")[0]
        files = sorted((FOLDER / group).glob("*.yaml")) if group != "operator" else []
        options = [path.stem for path in files if path.stem != default and not OmegaConf.missing_keys(OmegaConf.load(path))]
        others += [Case(name, None, (key, option)) for option in options]
    return [Case(name, boundary) for boundary in (BOUNDARIES if "boundary" in config else [None])] + others


ALL = [case for name in CONFIGS for case in cases(name)]
LINEAR = [case for case in ALL if case.linear]
WITH_SPECTRUM = [case for case in ALL if case.has_spectrum]


def generators(ids: Iterable[int], seed: int = 0) -> list[Generator]:
    return [image_generator(seed, name, "measurement") for name in ids]


def random_images(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Uniform numbers in [-1, 1]."""
    return torch.rand(shape, generator=Generator().manual_seed(seed), dtype=torch.float64).mul(2.0).sub(1.0).to(dtype)


def random_like(y: Tensor, seed: int = 0) -> Tensor:
    """Uniform numbers in [-1, 1] shaped like y, complex where y is."""
    if not y.is_complex():
        return random_images(*y.shape, seed=seed, dtype=y.dtype)
    return torch.view_as_complex(random_images(*y.shape, 2, seed=seed)).to(y.dtype)


def without_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators that round (`Operator.rounds`) no longer do: what is left has the slope that they use as a gradient."""
    for module in (rounding, jpeg):
        monkeypatch.setattr(module, "rounded", lambda x: x)


def norms(x: Tensor) -> Tensor:
    """‖x‖₂ per image."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Re⟨a, b⟩ per image."""
    return (components(a) * components(b)).sum(1)


def components(y: Tensor) -> Tensor:
    """The real numbers in y, (B, n): real and imaginary parts of a complex one."""
    return (torch.view_as_real(y) if y.is_complex() else y).flatten(1)


def dense(operator: Operator, channels: int = 1) -> Tensor:
    """The matrix of an operator drawn for one image, from its values on the unit vectors; real, one row per component of y."""
    shape = (channels, *operator.image_shape[-2:])
    count = channels * shape[1] * shape[2]
    return components(operator(torch.eye(count, dtype=torch.float64).view(count, *shape))).T


def measurement(operator: Operator, y: Tensor, sigma: float = 0.3) -> Measurement:
    """y, with Gaussian noise."""
    return Measurement.given(operator, Gaussian(sigma), y)


def largest_singular_value(operator: LinearOperator, x: Tensor, steps: int = 30) -> Tensor:
    """‖A‖ per image, from below, by power iteration on AᴴA."""
    for _ in range(steps):
        x = operator.adjoint(operator(x))
        x = x / norms(x).view(-1, 1, 1, 1)
    return norms(operator(x))


def by_conjugate_gradients(operator: LinearOperator) -> bool:
    """Whether A⁺ is iterated: then it is exact up to `cg_tolerance` only."""
    return not operator.has_spectrum


def residual_bound(operator: LinearOperator, x: Tensor) -> Tensor:
    """A bound on ‖A A⁺A x − A x‖ per image, from the operator's own limits.

    In closed form it is c (2 + c) ‖A‖ ‖x‖ with the cutoff c. By conjugate gradients, the error e = x̂ − x has
    ‖A e‖² = ⟨e, AᴴA e⟩ ≤ ‖e‖ · tol · ‖AᴴA x‖ where the tolerance was met, with ‖e‖ ≤ ‖x‖ since it falls in every step;
    after k steps without meeting it, ‖A e‖ ≤ ‖A‖ ‖x‖/(2k + 1) (Nemirovskii & Polyak 1984).
    """
    y, norm = operator(x), largest_singular_value(operator, x)
    if by_conjugate_gradients(operator):
        met = (norms(x) * operator.cg_tolerance * norms(operator.adjoint(y))).sqrt()
        return met.maximum(norm * norms(x) / (2 * operator.cg_iterations + 1))
    cutoff = getattr(operator, "cutoff", 0.0)
    return cutoff * (2.0 + cutoff) * norm * norms(x) + 1e-10 * norms(y)
