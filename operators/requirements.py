"""What a solver may need of the operator and the noise model, decided before an image or a network is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.noise_models import NoiseModel


@dataclass(frozen=True)
class Requirement:
    """`what` completes the sentence "the solver needs …"; `met` decides it for an operator and a noise model."""

    what: str
    met: Callable[[Operator, NoiseModel], bool]


LINEAR = Requirement("a linear operator", lambda operator, noise_model: operator.linear)
SPECTRUM = Requirement("an operator with a known singular value decomposition", lambda operator, noise_model: operator.has_spectrum)
INITIAL_IMAGE = Requirement(
    "an operator whose measurement gives an image to start from",
    lambda operator, noise_model: type(operator).initial_image is not Operator.initial_image,
)
DENSITY = Requirement(
    "noise with a density and its gradient, such as noise_model=gaussian with noise_model.sigma > 0",
    lambda operator, noise_model: noise_model.has_density and noise_model.has_gradient,
)
