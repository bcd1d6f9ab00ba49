"""What solvers may require, decided for every operator before it has seen an image."""

from __future__ import annotations

import pytest
from operator_cases import CONFIGS, Case

from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.blur import DeblurMotion
from diffusion_priors.operators.identity import Identity
from diffusion_priors.operators.linear import LinearOperator
from diffusion_priors.operators.noise_models import Gaussian, NoNoise, Poisson
from diffusion_priors.operators.requirements import DENSITY, INITIAL_IMAGE, LINEAR, SPECTRUM


@pytest.mark.parametrize("name", CONFIGS)
def test_only_phase_retrieval_and_a_function_are_not_linear_and_give_no_image(name, tmp_path):
    operator = Case(name).build((16, 16), tmp_path)
    linear = name not in ("phase_retrieval", "custom")
    assert LINEAR.met(operator, NoNoise()) == INITIAL_IMAGE.met(operator, NoNoise()) == linear


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
    met = [DENSITY.met(Identity(), noise) for noise in (Gaussian(0.1), Poisson(10.0), Gaussian(0.0), NoNoise())]
    assert met == [True, True, False, False]
