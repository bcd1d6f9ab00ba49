"""Laws of x0 whose noisy versions are known: density, score, x̂0 and covariance in closed form at every level."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, pi

import torch
from numpy.random import Generator
from torch import Tensor, nn

from diffusion_priors.diffusion.analytic.covariances import Covariance
from diffusion_priors.diffusion.levels import NoiseLevel


class Law(nn.Module):
    """p(x0), and through it p(x_t), x_t = α x0 + σ ε. Images are (B, C, H, W) in double precision."""

    shape: tuple[int, int, int]
    discrete = False
    """Whether x0 is one of a list of images (`Empirical`): p(x0) then has no density."""

    def log_density(self, x: Tensor, level: NoiseLevel) -> Tensor:
        """log p_t(x), (B,)."""
        raise NotImplementedError

    def score(self, x: Tensor, level: NoiseLevel) -> Tensor:
        """∇ log p_t(x)."""
        raise NotImplementedError

    def covariance_times(self, x: Tensor, level: NoiseLevel, v: Tensor) -> Tensor:
        """Cov[x0 | x_t = x] v for images v."""
        raise NotImplementedError

    def x0(self, x: Tensor, level: NoiseLevel) -> Tensor:
        """E[x0 | x_t = x], for α = 0 too."""
        raise NotImplementedError

    def draw(self, generators: Sequence[Generator]) -> Tensor:
        """x0 ~ p(x0), (B, C, H, W), image b from generator b."""
        raise NotImplementedError


class GaussianSum(Law):
    """A law that consists of Gaussians with weights, one of them or several."""

    def x0(self, x: Tensor, level: NoiseLevel) -> Tensor:
        """E[x0 | x_t] = (x_t + σ² ∇ log p_t(x_t))/α (Efron 2011, Eq. 1.4: Tweedie's formula); the mean of p(x0) where α = 0."""
        if level.alpha == 0.0:
            return sum((weight * part.mean for weight, part in self.components()), torch.zeros_like(x))
        return (x + level.sigma**2 * self.score(x, level)) / level.alpha

    def components(self) -> list[tuple[float, Gaussian]]:
        """The weights and the Gaussians it is a mixture of."""
        raise NotImplementedError

    def draw(self, generators: Sequence[Generator]) -> Tensor:
        """x0 ~ p(x0), (B, C, H, W), image b from generator b: its component, then x0 = m_k + S_k^½ z."""
        components = self.components()
        weights = [weight for weight, _ in components]
        images = []
        for generator in generators:
            _, part = components[generator.choice(len(weights), p=weights)]
            z = torch.from_numpy(generator.standard_normal(self.shape)).to(part.mean)
            images.append(part.mean + part.covariance.transform(torch.sqrt, z[None])[0])
        return torch.stack(images)


class Gaussian(GaussianSum):
    """x0 ~ N(m, S), so x_t ~ N(α m, α² S + σ² I). `mean` (C, H, W)."""

    mean: Tensor

    def __init__(self, mean: Tensor, covariance: Covariance) -> None:
        super().__init__()
        self.shape, self.covariance = covariance.shape, covariance
        self.register_buffer("mean", mean.double().expand(covariance.shape).clone())

    def score(self, x: Tensor, level: NoiseLevel) -> Tensor:
        """−(α² S + σ² I)⁻¹ (x − α m)."""
        return -self.covariance.transform(lambda values: 1.0 / (level.alpha**2 * values + level.sigma**2), x - level.alpha * self.mean)

    def log_density(self, x: Tensor, level: NoiseLevel) -> Tensor:
        return self.log_density_from(self.score(x, level), x, level)

    def log_density_from(self, score: Tensor, x: Tensor, level: NoiseLevel) -> Tensor:
        """log N(x; α m, α² S + σ² I), given the score there: −½ (rᵀ(−s) + log det + D log 2π), r = x − α m."""
        values = level.alpha**2 * self.covariance.values + level.sigma**2
        distance = -((x - level.alpha * self.mean) * score).flatten(1).sum(1)
        return -0.5 * (distance + values.log().sum() + values.numel() * log(2.0 * pi))

    def covariance_times(self, x: Tensor, level: NoiseLevel, v: Tensor) -> Tensor:
        """σ² S (α² S + σ² I)⁻¹ v, wherever x is."""
        return self.covariance.transform(lambda values: level.sigma**2 * values / (level.alpha**2 * values + level.sigma**2), v)

    def components(self) -> list[tuple[float, Gaussian]]:
        return [(1.0, self)]


class Mixture(GaussianSum):
    """p(x0) = Σ_k w_k N(m_k, S_k); so is p(x_t), with the same weights and each component's own p_t.

    Without `weights` all components have the same. Raises ValueError for weights that are no weights: one each, none negative, of sum 1.
    """

    parts: Sequence[Gaussian]
    weights: Tensor

    def __init__(self, weights: Sequence[float] | None, parts: Sequence[Gaussian]) -> None:
        super().__init__()
        self.shape = parts[0].shape
        self.parts = nn.ModuleList(parts)  # type: ignore[assignment]  # a sequence of them that moves with this module
        self.register_buffer("weights", checked_weights(weights, len(parts)))

    def _seen(self, x: Tensor, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        """The components' scores (K, B, C, H, W) and log w_k p_{t,k}(x), (K, B)."""
        scores = torch.stack([part.score(x, level) for part in self.parts])
        densities = [part.log_density_from(score, x, level) for part, score in zip(self.parts, scores, strict=True)]
        return scores, torch.stack(densities) + self.weights.log()[:, None]

    def log_density(self, x: Tensor, level: NoiseLevel) -> Tensor:
        return self._seen(x, level)[1].logsumexp(0)

    def score(self, x: Tensor, level: NoiseLevel) -> Tensor:
        """Σ_k r_k ∇ log p_{t,k}(x), r_k ∝ w_k p_{t,k}(x) the probability that x_t came from component k."""
        scores, densities = self._seen(x, level)
        return torch.einsum("kb,kbchw->bchw", densities.softmax(0), scores)

    def covariance_times(self, x: Tensor, level: NoiseLevel, v: Tensor) -> Tensor:
        """Σ_k r_k (C_k v + d_k d_kᵀ v), d_k = x̂0_k − x̂0: covariance within the components, and between them."""
        scores, densities = self._seen(x, level)
        chances = densities.softmax(0)
        score = torch.einsum("kb,kbchw->bchw", chances, scores)
        apart = (scores - score) * (level.sigma**2 / level.alpha)
        along = chances * (apart * v).flatten(2).sum(2)
        within = torch.stack([part.covariance_times(x, level, v) for part in self.parts])
        return torch.einsum("kb,kbchw->bchw", chances, within) + torch.einsum("kb,kbchw->bchw", along, apart)

    def components(self) -> list[tuple[float, Gaussian]]:
        return [(float(weight), part) for weight, part in zip(self.weights, self.parts, strict=True)]


def checked_weights(weights: Sequence[float] | None, count: int) -> Tensor:
    """`count` weights in double precision; without any, 1/`count` each. Raises ValueError for those that are no probabilities."""
    if weights is None:
        return torch.full((count,), 1.0 / count, dtype=torch.float64)
    if len(weights) != count or min(weights) < 0.0 or abs(sum(weights) - 1.0) > 1e-6:
        given = f"{list(weights[:3])}{'…' if len(weights) > 3 else ''}"
        raise ValueError(f"{count} components need as many weights that sum to 1, got {len(weights)}: {given}; set prior.weights")
    return torch.tensor(weights, dtype=torch.float64)
