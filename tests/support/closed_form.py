"""Diffusion with a Gaussian prior in plain numpy matrices, written from the papers' formulas and from nothing of the project.

Images are rows of (B, D) arrays, channels, rows and columns flattened in that order. `bar` is ᾱ at the level left,
`bar_next` at the level reached, 1 at the noise-free end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi, sqrt

import numpy as np


def linear_bars(steps: int = 1000, first: float = 1e-4, last: float = 2e-2) -> np.ndarray:
    """ᾱ_t = Π (1 − β_i), β linear (Ho et al. 2020, Sec. 4)."""
    return np.cumprod(1.0 - np.linspace(first, last, steps))


def cosine_bars(steps: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> np.ndarray:
    """ᾱ_t from f(t) = cos²(π/2 (t/T + s)/(1 + s)), β clipped (Nichol & Dhariwal 2021, Eq. 17)."""
    f = np.array([cos((t / steps + s) / (1 + s) * pi / 2) ** 2 for t in range(steps + 1)])
    return np.cumprod(1.0 - np.minimum(1.0 - f[1:] / f[:-1], max_beta))


@dataclass(frozen=True)
class GaussianLaw:
    """x0 ~ N(m, S), so x_t ~ N(√ᾱ m, ᾱ S + (1 − ᾱ) I)."""

    mean: np.ndarray
    covariance: np.ndarray

    @property
    def side(self) -> int:
        return len(self.mean)

    def precision(self, bar: float) -> np.ndarray:
        return np.linalg.inv(bar * self.covariance + (1.0 - bar) * np.eye(self.side))

    def score(self, x: np.ndarray, bar: float) -> np.ndarray:
        """∇ log p_t(x) = −(ᾱ S + (1 − ᾱ) I)⁻¹ (x − √ᾱ m)."""
        return -(x - sqrt(bar) * self.mean) @ self.precision(bar)

    def jacobian(self, bar: float) -> np.ndarray:
        """∂x̂0/∂x_t = √ᾱ S (ᾱ S + (1 − ᾱ) I)⁻¹: Cov(x0, x_t) Var(x_t)⁻¹."""
        return sqrt(bar) * self.covariance @ self.precision(bar)

    def x0(self, x: np.ndarray, bar: float) -> np.ndarray:
        """E[x0 | x_t] by conditioning the joint Gaussian."""
        return self.mean + (x - sqrt(bar) * self.mean) @ self.jacobian(bar).T


def ddpm(x: np.ndarray, score: np.ndarray, bar: float, bar_next: float, z: np.ndarray | float = 0.0, large: bool = False) -> np.ndarray:
    """x_{t−1} = (x_t + (1 − α_t) s)/√α_t + τ z (the paper's Eq. 2; Ho et al. 2020, Alg. 2), α_t = ᾱ_t/ᾱ_{t−1}."""
    alpha = bar / bar_next
    beta = 1.0 - alpha
    posterior = beta * (1.0 - bar_next) / (1.0 - bar)
    variance = 0.0 if bar_next == 1.0 else beta if large else posterior
    return (x + beta * score) / sqrt(alpha) + sqrt(variance) * z


def ddim(x: np.ndarray, score: np.ndarray, bar: float, bar_next: float, z: np.ndarray | float = 0.0, eta: float = 0.0) -> np.ndarray:
    """√ᾱ_s x̂0 + √(1 − ᾱ_s − τ²) ε̂ + τ z, τ = η √((1 − ᾱ_s)/(1 − ᾱ_t)) √(1 − ᾱ_t/ᾱ_s) (Song et al. 2021, Eq. 12 and 16)."""
    tau = eta * sqrt((1.0 - bar_next) / (1.0 - bar) * (1.0 - bar / bar_next))
    x0, eps = (x + (1.0 - bar) * score) / sqrt(bar), -sqrt(1.0 - bar) * score
    return sqrt(bar_next) * x0 + sqrt(max(1.0 - bar_next - tau**2, 0.0)) * eps + tau * z


def langevin(law: GaussianLaw, u: np.ndarray, bar: float, step: float, weight: float, pull: Callable, draws: list) -> np.ndarray:
    """u ← u + η (∇ log N(u; m, S + σ̃² I) + pull(u, σ̃²)) + √(2η) z, η = step/(1/σ̃² + 2λ), σ̃² = (1 − ᾱ)/ᾱ, once per draw."""
    variance = (1.0 - bar) / bar
    precision = np.linalg.inv(law.covariance + variance * np.eye(law.side))
    eta = step / (1.0 / variance + 2.0 * weight)
    for z in draws:
        u = u + eta * (-(u - law.mean) @ precision + pull(u, variance)) + sqrt(2.0 * eta) * z
    return u


def residual_gradient(law: GaussianLaw, x: np.ndarray, bar: float, matrix: np.ndarray, y: np.ndarray) -> np.ndarray:
    """∇_{x_t} ‖y − A x̂0(x_t)‖₂ = −Jᵀ Aᵀ r/‖r‖, r = y − A x̂0, J the denoiser's Jacobian."""
    r = y - law.x0(x, bar) @ matrix.T
    return -(r / np.linalg.norm(r, axis=1, keepdims=True)) @ matrix @ law.jacobian(bar)


def fast_dips(
    a: np.ndarray, y: np.ndarray, x0: np.ndarray, u: float, rho: float, radius: float, iterations: int, descents: int
) -> np.ndarray:
    """FAST-DIPS for one image (Kim et al. 2026): ADMM in the official order, with the exact step along the gradient."""
    x, v, w = x0.copy(), a @ x0, np.zeros(len(y))
    for _ in range(iterations):
        b = v - w
        for _ in range(descents):
            g = (x - x0) / u**2 + rho * a.T @ (a @ x - b)
            curvature = g @ g / u**2 + rho * (a @ g) @ (a @ g)
            x = x - (g @ g / curvature if curvature > 0 else 0.0) * g
        q = a @ x + w
        norm = np.linalg.norm(q - y)
        v = q if norm <= radius else y + radius * (q - y) / norm
        w = w + a @ x - v
    return x


@dataclass(frozen=True)
class Affine:
    """x ↦ F x + G z + c, z ~ N(0, I): what one step of a solver without guidance through x̂0 is, for a Gaussian prior."""

    F: np.ndarray
    G: np.ndarray
    c: np.ndarray

    @classmethod
    def of(cls, step: Callable[[np.ndarray, np.ndarray], np.ndarray], side: int) -> Affine:
        """The map of an affine `step(x, z)`, read off its values at 0 and at the unit vectors."""
        nothing, units = np.zeros((1, side)), np.eye(side)
        c = step(nothing, nothing)
        return cls((step(units, np.zeros_like(units)) - c).T, (step(np.zeros_like(units), units) - c).T, c[0])

    def moments(self, mean: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.F @ mean + self.c, self.F @ covariance @ self.F.T + self.G @ self.G.T


def mask_matrix(mask: np.ndarray, channels: int) -> np.ndarray:
    """diag(M), the mask (H, W) shared by the channels."""
    return np.diag(np.tile(mask.ravel(), channels))


def measured(matrix: np.ndarray) -> int:
    """How many entries of y an operator measures: the others have a row of zeros."""
    return int(matrix.any(axis=1).sum())


def separable_matrix(rows: np.ndarray, columns: np.ndarray, channels: int) -> np.ndarray:
    """I ⊗ R ⊗ C: vec(R X Cᵀ) per channel, rows before columns."""
    return np.kron(np.eye(channels), np.kron(rows, columns))


def block_mean(side: int, factor: int) -> np.ndarray:
    """(side/factor, side): each row averages `factor` neighbours."""
    matrix = np.zeros((side // factor, side))
    for i in range(side // factor):
        matrix[i, i * factor : (i + 1) * factor] = 1.0 / factor
    return matrix


def gaussian_blur(side: int, size: int, std: float, boundary: str) -> np.ndarray:
    """(side, side): `size` taps of a Gaussian; the image goes on around (circular) or mirrored about its edge pixel."""
    reach = size // 2
    taps = [np.exp(-0.5 * (k / std) ** 2) for k in range(-reach, reach + 1)]
    matrix = np.zeros((side, side))
    for i in range(side):
        for k, tap in zip(range(-reach, reach + 1), taps, strict=True):
            j = i + k
            if boundary == "circular":
                j %= side
            elif j < 0:
                j = -j
            elif j >= side:
                j = 2 * (side - 1) - j
            matrix[i, j] += tap / sum(taps)
    return matrix
