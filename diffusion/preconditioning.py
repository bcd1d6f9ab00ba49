"""Preconditionings: what a network's output means, turned into x̂0, and what it is trained on."""

from __future__ import annotations

from torch import Tensor

from diffusion_priors.diffusion.levels import NoiseLevel


class Preconditioning:
    """network output ↔ x̂0 = E[x0 | x_t], in the network's own pixel units, (B, C, H, W).

    `error` is what the network's training makes small. It is linear in x̂0 − x0, with ‖error‖² = gain · ‖x̂0 − x0‖².
    A level's alpha and sigma are numbers, or hold one per image, (B, 1, 1, 1).
    """

    name: str

    def x0(self, x: Tensor, output: Tensor, level: NoiseLevel) -> Tensor:
        raise NotImplementedError

    def error(self, output: Tensor, x0: Tensor, z: Tensor, level: NoiseLevel) -> Tensor:
        """The output minus what it should have been for x_t = α x0 + σ z."""
        raise NotImplementedError

    def gain(self, level: NoiseLevel) -> float | Tensor:
        raise NotImplementedError


class Eps(Preconditioning):
    """x̂0 = (x_t − σ ε̂)/α (Ho et al. 2020, Eq. 15), trained on ε̂ − ε (Eq. 14)."""

    name = "eps"

    def x0(self, x, output, level):
        return (x - level.sigma * output) / level.alpha

    def error(self, output, x0, z, level):
        return output - z

    def gain(self, level):
        return (level.alpha / level.sigma) ** 2


class X0(Preconditioning):
    """x̂0 = the output itself, trained on x̂0 − x0."""

    name = "x0"

    def x0(self, x, output, level):
        return output

    def error(self, output, x0, z, level):
        return output - x0

    def gain(self, level):
        return 1.0


class V(Preconditioning):
    """v = α ε − σ x0, so x̂0 = (α x_t − σ v̂)/(α² + σ²) (Salimans & Ho 2022, App. D), trained on v̂ − v."""

    name = "v"

    def x0(self, x, output, level):
        return (level.alpha * x - level.sigma * output) / (level.alpha**2 + level.sigma**2)

    def error(self, output, x0, z, level):
        return output - (level.alpha * z - level.sigma * x0)

    def gain(self, level):
        return ((level.alpha**2 + level.sigma**2) / level.sigma) ** 2


class Score(Preconditioning):
    """x̂0 = (x_t + σ² ŝ)/α (Tweedie; the paper's Eq. 3), trained on σ (ŝ + ε/σ) (Song & Ermon 2019, Eq. 5 with λ = σ²)."""

    name = "score"

    def x0(self, x, output, level):
        return (x + level.sigma**2 * output) / level.alpha

    def error(self, output, x0, z, level):
        return level.sigma * output + z

    def gain(self, level):
        return (level.alpha / level.sigma) ** 2
