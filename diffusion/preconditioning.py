"""Preconditioning: what the network is fed, how its output becomes x̂0, and what it is trained on."""

from __future__ import annotations

from math import log, sqrt

from torch import Tensor

from diffusion_priors.diffusion.levels import NoiseLevel


class Preconditioning:
    """network(c_in x_t, c_noise) ↔ x̂0 = E[x0 | x_t], in the network's own pixel units, (B, C, H, W).

    Training makes `error` small. It is linear in x̂0 − x0, with ‖error‖² = gain · ‖x̂0 − x0‖².
    A level's alpha and sigma are numbers, or hold one value per image, (B, 1, 1, 1).
    """

    name: str

    def inputs(self, x: Tensor, level: NoiseLevel) -> tuple[Tensor, float | Tensor]:
        """x_t and a level → c_in x_t and c_noise: by default x_t itself and the schedule's time."""
        return x, level.t

    def x0(self, x: Tensor, output: Tensor, level: NoiseLevel) -> Tensor:
        raise NotImplementedError

    def target(self, x0: Tensor, z: Tensor, level: NoiseLevel) -> Tensor:
        """The output that x_t = α x0 + σ z should have."""
        raise NotImplementedError

    def error(self, output: Tensor, x0: Tensor, z: Tensor, level: NoiseLevel) -> Tensor:
        return output - self.target(x0, z, level)

    def gain(self, level: NoiseLevel) -> float | Tensor:
        raise NotImplementedError

    def describe(self) -> str | dict:
        """Its name, with the constructor's arguments where it has any: plain values for a prior's card."""
        return self.name


class Eps(Preconditioning):
    """x̂0 = (x_t − σ ε̂)/α (Ho et al. 2020, Eq. 15), trained on ε̂ − ε (Eq. 14)."""

    name = "eps"

    def x0(self, x: Tensor, output: Tensor, level: NoiseLevel) -> Tensor:
        return (x - level.sigma * output) / level.alpha

    def target(self, x0: Tensor, z: Tensor, level: NoiseLevel) -> Tensor:
        return z

    def gain(self, level: NoiseLevel) -> float | Tensor:
        return (level.alpha / level.sigma) ** 2


class X0(Preconditioning):
    """x̂0 = the output itself, trained on x̂0 − x0."""

    name = "x0"

    def x0(self, x: Tensor, output: Tensor, level: NoiseLevel) -> Tensor:
        return output

    def target(self, x0: Tensor, z: Tensor, level: NoiseLevel) -> Tensor:
        return x0

    def gain(self, level: NoiseLevel) -> float | Tensor:
        return 1.0


class Denoising(Preconditioning):
    """x̂0 = D(x_t/α, σ/α) for a network D that is a denoiser itself, of x0 + u ε given u, trained on x̂0."""

    name = "denoising"

    def inputs(self, x: Tensor, level: NoiseLevel) -> tuple[Tensor, float | Tensor]:
        if isinstance(level.sigma, Tensor):
            return x / level.alpha, (level.sigma / level.alpha).flatten()
        return x / level.alpha, level.noise_to_signal

    def x0(self, x: Tensor, output: Tensor, level: NoiseLevel) -> Tensor:
        return output

    def target(self, x0: Tensor, z: Tensor, level: NoiseLevel) -> Tensor:
        return x0

    def gain(self, level: NoiseLevel) -> float | Tensor:
        return 1.0


class V(Preconditioning):
    """v = α ε − σ x0, so x̂0 = (α x_t − σ v̂)/(α² + σ²) (Salimans & Ho 2022, App. D), trained on v̂ − v."""

    name = "v"

    def x0(self, x: Tensor, output: Tensor, level: NoiseLevel) -> Tensor:
        return (level.alpha * x - level.sigma * output) / (level.alpha**2 + level.sigma**2)

    def target(self, x0: Tensor, z: Tensor, level: NoiseLevel) -> Tensor:
        return level.alpha * z - level.sigma * x0

    def gain(self, level: NoiseLevel) -> float | Tensor:
        return ((level.alpha**2 + level.sigma**2) / level.sigma) ** 2


class Score(Preconditioning):
    """x̂0 = (x_t + σ² ŝ)/α (Tweedie; the paper's Eq. 3), trained on σ (ŝ + ε/σ) (Song & Ermon 2019, Eq. 5 with λ = σ²)."""

    name = "score"

    def x0(self, x: Tensor, output: Tensor, level: NoiseLevel) -> Tensor:
        return (x + level.sigma**2 * output) / level.alpha

    def target(self, x0: Tensor, z: Tensor, level: NoiseLevel) -> Tensor:
        return -z / level.sigma

    def error(self, output: Tensor, x0: Tensor, z: Tensor, level: NoiseLevel) -> Tensor:
        return level.sigma * output + z

    def gain(self, level: NoiseLevel) -> float | Tensor:
        return (level.alpha / level.sigma) ** 2


class EDM(Preconditioning):
    """x̂0 = c_skip x + c_out F(c_in x, c_noise) for x = x_t/α, u = σ/α (Karras et al. 2022, Eq. 7 and Table 1).

    c_skip = d²/(u² + d²), c_out = u d/√(u² + d²), c_in = 1/√(u² + d²), c_noise = ln(u)/4, d = `data_std`, the standard
    deviation of clean pixels. All are written in α and σ, so that α = 0 divides by nothing.

    Raises ValueError where data_std is not positive.
    """

    name = "edm"

    def __init__(self, data_std: float = 0.5) -> None:
        if not data_std > 0.0:
            raise ValueError(f"EDM's preconditioning needs a positive data_std, got {data_std}; set preconditioning.data_std")
        self.data_std = data_std

    def inputs(self, x: Tensor, level: NoiseLevel) -> tuple[Tensor, float | Tensor]:
        return x / self._norm(level), self._log_ratio(level) / 4.0

    def x0(self, x: Tensor, output: Tensor, level: NoiseLevel) -> Tensor:
        norm = self._norm(level)
        return (self.data_std**2 * level.alpha / norm**2) * x + (level.sigma * self.data_std / norm) * output

    def target(self, x0: Tensor, z: Tensor, level: NoiseLevel) -> Tensor:
        norm = self._norm(level)
        x = level.alpha * x0 + level.sigma * z
        return (x0 - (self.data_std**2 * level.alpha / norm**2) * x) / (level.sigma * self.data_std / norm)

    def gain(self, level: NoiseLevel) -> float | Tensor:
        return (self._norm(level) / (level.sigma * self.data_std)) ** 2

    def describe(self) -> str | dict:
        return {"name": self.name, "data_std": self.data_std}

    def _norm(self, level: NoiseLevel) -> float | Tensor:
        """√(σ² + α² d²), the standard deviation of x_t."""
        square = level.sigma**2 + (level.alpha * self.data_std) ** 2
        return square.sqrt() if isinstance(square, Tensor) else sqrt(square)

    def _log_ratio(self, level: NoiseLevel) -> float | Tensor:
        if isinstance(level.sigma, Tensor):
            return (level.sigma / level.alpha).log().flatten()
        return log(level.noise_to_signal)


class Flow(Preconditioning):
    """v = ε − x0, so x̂0 = (x_t − σ v̂)/(α + σ) (Liu et al. 2023, Eq. 1), trained on v̂ − v."""

    name = "flow"

    def x0(self, x: Tensor, output: Tensor, level: NoiseLevel) -> Tensor:
        return (x - level.sigma * output) / (level.alpha + level.sigma)

    def target(self, x0: Tensor, z: Tensor, level: NoiseLevel) -> Tensor:
        return z - x0

    def gain(self, level: NoiseLevel) -> float | Tensor:
        return ((level.alpha + level.sigma) / level.sigma) ** 2


class RescaledTime(Preconditioning):
    """`inner`, with a network that is fed `factor` · t in place of t (guided-diffusion's rescale_timesteps: factor = 1000/T)."""

    def __init__(self, inner: Preconditioning, factor: float) -> None:
        self.inner, self.factor, self.name = inner, factor, inner.name

    def inputs(self, x: Tensor, level: NoiseLevel) -> tuple[Tensor, float | Tensor]:
        x, t = self.inner.inputs(x, level)
        return x, t * self.factor

    def x0(self, x: Tensor, output: Tensor, level: NoiseLevel) -> Tensor:
        return self.inner.x0(x, output, level)

    def target(self, x0: Tensor, z: Tensor, level: NoiseLevel) -> Tensor:
        return self.inner.target(x0, z, level)

    def error(self, output: Tensor, x0: Tensor, z: Tensor, level: NoiseLevel) -> Tensor:
        return self.inner.error(output, x0, z, level)

    def gain(self, level: NoiseLevel) -> float | Tensor:
        return self.inner.gain(level)

    def describe(self) -> str | dict:
        return self.inner.describe()
