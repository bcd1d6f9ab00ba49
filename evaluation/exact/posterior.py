"""Exact posteriors p(x0 | y): of a Gaussian or a mixture for a linear operator and Gaussian noise, of a list of images for any."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from numpy import ndarray
from scipy import linalg
from scipy.special import softmax
from torch import Tensor

from diffusion_priors.diffusion.analytic.empirical import Empirical
from diffusion_priors.diffusion.analytic.laws import GaussianSum, Law
from diffusion_priors.evaluation.exact.known_law import KnownLaw
from diffusion_priors.evaluation.exact.mixtures import CovarianceFactor, GaussianMixture
from diffusion_priors.evaluation.exact.weighted_images import WeightedImages
from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.linear import LinearOperator
from diffusion_priors.operators.noise_models import NoiseModel

LARGEST = 2048
"""Largest number of values in an image: the closed form needs dense matrices of this side."""

Given = Callable[[Tensor], KnownLaw]
"""A measurement y (1, …) → p(x0 | y)."""


def posterior_of(law: Law, operator: Operator, noise_model: NoiseModel) -> Given:
    """The posteriors of a law, for an operator drawn for one image in double precision.

    Raises ValueError, in one line, where they are not known.
    """
    if law.discrete:
        return of_images(cast(Empirical, law), operator, noise_model)
    return of_gaussians(cast(GaussianSum, law), operator, noise_model)


def of_gaussians(law: GaussianSum, operator: Operator, noise_model: NoiseModel) -> Given:
    """The posteriors of `Posterior`."""
    sigma = getattr(noise_model, "std", None)
    if sigma is None:
        raise ValueError("the exact posterior is known for Gaussian noise; set noise_model=gaussian")
    matrix, measured = matrix_of(operator, law.shape)
    posterior = Posterior(law, matrix, sigma)
    return lambda y: posterior.given(y.flatten().double().numpy()[measured])


def of_images(law: Empirical, operator: Operator, noise_model: NoiseModel) -> Given:
    """v_i ∝ w_i p(y | A(x_i)) (Bayes' rule), for any operator and any noise with a density."""
    if not noise_model.has_density:
        raise ValueError("the exact posterior needs noise with a density; set noise_model=gaussian noise_model.sigma=0.05")
    check_size(law.shape)
    images = law.images.double()
    clean = operator.repeat(len(images))(images)
    support = operator.support(clean)

    def given(y: Tensor) -> WeightedImages:
        nll = noise_model.nll(y.to(clean).expand_as(clean), clean, support)
        return WeightedImages(softmax((law.log_weights - nll).numpy()), images.flatten(1).numpy())

    return given


class Posterior:
    """p(x0 | y) = Σ_k v_k N(μ_k, C_k) for p(x0) = Σ_k w_k N(m_k, S_k), y = A x0 + σ_y n.

    With G_k = A S_k Aᵀ + σ_y² I and K_k = S_k Aᵀ G_k⁻¹ (Bishop 2006, Eq. 2.113–2.117, and Bayes' rule for the weights):
    μ_k = m_k + K_k (y − A m_k),  C_k = S_k − K_k A S_k,  v_k ∝ w_k N(y; A m_k, G_k).

    `matrix` is A (M, D), without the rows that are not measured; y are rows (B, M).
    Raises ValueError for a singular G_k, which can occur without noise.
    """

    def __init__(self, law: GaussianSum, matrix: ndarray, sigma_y: float) -> None:
        self.matrix = matrix
        self.logs, self.means, self.gains, self.evidence, self.covariances = [], [], [], [], []
        shared: dict[int, tuple[ndarray, CovarianceFactor, CovarianceFactor]] = {}  # components with one covariance share one gain
        for weight, component in law.components():
            key = id(component.covariance)
            if key not in shared:
                shared[key] = condition(component.covariance.dense().cpu().numpy(), matrix, sigma_y)
            gain, evidence, covariance = shared[key]
            self.logs.append(np.log(weight) if weight > 0.0 else -np.inf)
            self.means.append(component.mean.flatten().cpu().numpy())
            self.gains.append(gain)
            self.evidence.append(evidence)
            self.covariances.append(covariance)

    def given(self, y: ndarray) -> GaussianMixture:
        """The posterior of one measurement y (M,)."""
        residuals = [y - self.matrix @ mean for mean in self.means]
        means = [mean + gain @ r for mean, gain, r in zip(self.means, self.gains, residuals, strict=True)]
        if len(means) == 1:  # its weight is 1, whatever the evidence
            return GaussianMixture(np.ones(1), np.stack(means), self.covariances)
        logs = [log + evidence.log_density(r[None])[0] for log, evidence, r in zip(self.logs, self.evidence, residuals, strict=True)]
        return GaussianMixture(softmax(logs), np.stack(means), self.covariances)


def condition(covariance: ndarray, matrix: ndarray, sigma_y: float) -> tuple[ndarray, CovarianceFactor, CovarianceFactor]:
    """(K, the covariance of y, the covariance of x0 given y) for one component of covariance S."""
    projected = matrix @ covariance
    total = projected @ matrix.T + sigma_y**2 * np.eye(len(matrix))
    try:
        gain = linalg.cho_solve(linalg.cho_factor(total), projected).T
    except linalg.LinAlgError as error:
        raise ValueError("the exact posterior needs noise in the measurement; set noise_model=gaussian noise_model.sigma=0.05") from error
    left = covariance - gain @ projected
    return gain, CovarianceFactor(total), CovarianceFactor((left + left.T) / 2)


def matrix_of(operator: Operator, shape: tuple[int, int, int]) -> tuple[ndarray, ndarray]:
    """A as a matrix (M, D), and which entries of y (flattened) are measured, for an operator drawn for one image.

    Raises ValueError for an operator that is not linear, and for images that are too large.
    """
    side = int(np.prod(shape))
    if not isinstance(operator, LinearOperator):
        raise ValueError(
            f"the exact posterior of this prior is known for linear operators, and {type(operator).__name__} is not linear; "
            "choose another operator, or prior=empirical"
        )
    check_size(shape)
    units = torch.eye(side, dtype=torch.float64).view(side, *shape)
    images = torch.cat([operator(unit[None]) for unit in units])
    measured = operator.support(images[:1]).expand_as(images[:1]).flatten().bool().numpy()
    return images.flatten(1).numpy().T[measured], measured


def check_size(shape: tuple[int, int, int]) -> None:
    """Raises ValueError for images that are too large."""
    side = int(np.prod(shape))
    if side > LARGEST:
        raise ValueError(
            f"the exact posterior of {' x '.join(map(str, shape))} images needs matrices of side {side}, beyond {LARGEST}; "
            "lower prior.size, or set prior.channels=1"
        )
