"""What solvers may require, decided for every operator before it has seen an image."""

from __future__ import annotations

import pytest
from operator_cases import CONFIGS, Case

from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.blur import DeblurMotion
from diffusion_priors.operators.identity import Identity
from diffusion_priors.operators.linear import LinearOperator
from diffusion_priors.operators.noise.laplace import Laplace
from diffusion_priors.operators.noise.salt_and_pepper import SaltAndPepper
from diffusion_priors.operators.noise.uniform import Uniform
from diffusion_priors.operators.noise_models import Gaussian, NoNoise, Poisson
from diffusion_priors.operators.requirements import DENSITY, INITIAL_IMAGE, LINEAR, SPECTRUM

NONLINEAR = {"blur_nonlinear", "coded_diffraction", "custom", "gamma", "hdr", "jpeg", "phase_retrieval", "quantisation", "saturation"}


@pytest.mark.parametrize("name", CONFIGS)
def test_only_magnitudes_without_phases_and_a_function_give_no_image_to_start_from(name, tmp_path):
    operator = Case(name).build((16, 16), tmp_path)
    linear, gives_image = (requirement.met(operator, NoNoise()) for requirement in (LINEAR, INITIAL_IMAGE))
    if name in NONLINEAR:
        assert not linear and gives_image == (name not in ("coded_diffraction", "custom", "phase_retrieval"))
    assert gives_image or not linear


def test_a_spectrum_depends_on_the_boundary():
    assert SPECTRUM.met(DeblurMotion(boundary="circular"), NoNoise())
    assert not SPECTRUM.met(DeblurMotion(boundary="zero"), NoNoise()) and not SPECTRUM.met(LinearOperator(), NoNoise())


def test_a_nonlinear_operator_gives_an_image_if_it_says_how():
    class Clipped(Operator):
        def initial_image(self, y):
            return y / 2.0

    assert INITIAL_IMAGE.met(Clipped(), NoNoise()) and not INITIAL_IMAGE.met(Operator(), NoNoise())
    assert not LINEAR.met(Clipped(), NoNoise()) and not SPECTRUM.met(Clipped(), NoNoise())


def test_a_density_depends_on_the_noise_alone():
    """Uniform noise has one, but not its gradient; salt-and-pepper noise has one where the other values carry Gaussian noise."""
    noises = (Gaussian(0.1), Poisson(10.0), Laplace(), SaltAndPepper(), Gaussian(0.0), NoNoise(), Uniform(), SaltAndPepper(0.1, 0.0))
    assert [DENSITY.met(Identity(), noise) for noise in noises] == [True] * 4 + [False] * 4
